//! What is measured, in the order in which the results show it. Each row takes its players in turn, once per round.

mod contended;
mod growth;
mod holding;
mod idle;
mod killed;
mod languages;
mod pairs;
mod size;
mod told;
mod waiters;

use std::collections::BTreeMap;
use std::time::Instant;

use coord_bench_worker::Result;

use crate::book::Book;
use crate::stage::{Player, Stage};

/// One round of measuring.
pub(crate) struct Round<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) book: &'a mut Book,
    /// What takes long and hardly varies is measured in the first round only.
    pub(crate) first: bool,
    /// No measurement begins after this moment.
    pub(crate) until: Instant,
}

/// A row, by the word that `ONLY` takes.
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) word: &'static str,
    pub(crate) title: &'static str,
    pub(crate) measure: fn(&mut Round<'_>) -> Result<()>,
}

/// All rows. The micro-benchmarks take calls apart.
pub(crate) const ROWS: [Row; 13] = [
    Row { number: 1, word: "pair", title: "Uncontended acquire + release", measure: pairs::one_at_a_time },
    Row { number: 2, word: "parallel", title: "64 different locks at once, one process", measure: pairs::many_at_once },
    Row {
        number: 3,
        word: "contended",
        title: "16 processes, one lock, again and again",
        measure: contended::again_and_again,
    },
    Row { number: 4, word: "handover", title: "Release until the next waiter holds", measure: contended::handed_over },
    Row { number: 5, word: "waiters", title: "Many waiters on one lock", measure: waiters::in_line },
    Row { number: 6, word: "killed", title: "Holder killed until a waiter holds", measure: killed::killed },
    Row { number: 7, word: "holding", title: "Cost of holding", measure: holding::holding },
    Row {
        number: 8,
        word: "told",
        title: "Write until an observer, a watch or a reconciler in another process is called",
        measure: told::told,
    },
    Row { number: 9, word: "queue", title: "Reconcile queue, 8 workers", measure: languages::queue },
    Row { number: 10, word: "calls", title: "Calls without I/O", measure: languages::calls },
    Row {
        number: 11,
        word: "idle",
        title: "Idle process with one session, one election, one observer",
        measure: idle::idle,
    },
    Row { number: 12, word: "growth", title: "Growth", measure: growth::growth },
    Row { number: 13, word: "size", title: "Size", measure: size::size },
];

/// Figures of this round by player, for ratios.
pub(crate) type Figures = BTreeMap<Player, f64>;

impl Round<'_> {
    /// Measures each player in turn. What fails is told and left out.
    pub(crate) fn each(
        &mut self,
        players: &[Player],
        mut measure: impl FnMut(&mut Self, Player) -> Result<Option<f64>>,
    ) -> Figures {
        let mut figures = Figures::new();
        for player in players {
            if self.is_over() {
                break;
            }
            match measure(self, *player) {
                Ok(Some(figure)) => {
                    figures.insert(*player, figure);
                }
                Ok(None) => {}
                Err(error) => self.book.absent(format!("{}: {error}", player.name())),
            }
        }
        figures
    }

    /// Whether the time for all rows is over; then that is told.
    fn is_over(&mut self) -> bool {
        let over = Instant::now() >= self.until;
        if over {
            self.book.absent("what was to follow when the time for all rows was over");
        }
        over
    }
}

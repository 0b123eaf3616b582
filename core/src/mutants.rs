//! Known-bad variants of this library, which the simulation must catch, or the crash matrix: a campaign that stays green
//! with one of them has no power, and its green proves nothing.
//!
//! Only with the feature `mutants`, which nothing but a campaign enables. Without it [`on`] is a constant, so each
//! hook and what hangs on it vanish from the code.

/// One known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the table below says what each does")]
pub enum Mutant {
    DeadlineFromReply = 1,
    NoMargin,
    KillWithoutNonce,
    RenewalRevivesTheDead,
    OwnTtl,
    SupersededRefusalIsLoss,
    WallClockExpiry,
    MissingIsDead,
    AssumeKilled,
    ClearOnce,
    NoKeeper,
    NoCheckAfterGrant,
    AbandonedWaitStays,
    TimerOnlyGuard,
    HoldsRevive,
    GapIgnored,
    UnknownGrantKept,
    NoAudit,
    NoPoll,
    BreakEvicts,
    BreakUnheard,
    EarlyBreakForgotten,
    EvictionUntold,
    ReleaseWithoutHandOver,
    ReleaseEvictsAnyHolder,
    TryWaitsBehindPurge,
    TokenWithoutFloor,
    CollectWithoutFloor,
    CollectByDate,
    UncommittedAcknowledged,
    LocalRead,
    ClockStandsStill,
    TermKeptInHandOver,
    LeadsUnpublished,
    StoryWithoutPause,
    PriorityIgnored,
    ServerClockExpiry,
    StaleProvide,
    LateLossForgets,
    NotReregistered,
    NoCallLimit,
    WithdrawalBelieved,
    GrantToTheLast,
    UnbornStay,
    ListenersStay,
    TransactionsStay,
    MailsStay,
    MailDoubtForgotten,
}

/// Every mutant that is the simulation's, with its name and what it does wrong.
pub const ALL: [(Mutant, &str, &str); 43] = {
    use Mutant as M;
    [
        (M::DeadlineFromReply, "deadline-from-reply", "a renewal counts from its answer, not from its first send"),
        (M::NoMargin, "no-margin", "the holder believes for the whole ttl"),
        (M::KillWithoutNonce, "kill-without-nonce", "a kill applies whatever was renewed since the last look"),
        (M::RenewalRevivesTheDead, "renewal-revives-the-dead", "a dead session can renew"),
        (M::OwnTtl, "own-ttl", "an observer counts its own ttl instead of the observed session's"),
        (M::SupersededRefusalIsLoss, "superseded-refusal-is-loss", "any refused renewal ends the session"),
        (M::WallClockExpiry, "wall-clock-expiry", "a session is dead when its date plus ttl has passed"),
        (M::MissingIsDead, "missing-is-dead", "a session that a read does not show is dead"),
        (M::AssumeKilled, "assume-killed", "a kill with an unknown outcome counts as done"),
        (M::ClearOnce, "clear-once", "nobody looks again for what a dead session got late"),
        (M::NoKeeper, "no-keeper", "nobody observes the sessions that nobody waits for"),
        (M::NoCheckAfterGrant, "no-check-after-grant", "a grant is handed out although the session is not live"),
        (M::AbandonedWaitStays, "abandoned-wait-stays", "a wait whose future was dropped stays in the queue"),
        (M::TimerOnlyGuard, "timer-only-guard", "a check reads no clock, and waits for a timer to say that time is up"),
        (M::HoldsRevive, "holds-revive", "holds of a suspended session are valid again after it has renewed"),
        (M::GapIgnored, "gap-ignored", "nothing is read after the stream of notices was reopened"),
        (M::UnknownGrantKept, "unknown-grant-kept", "a grant that nobody here asked for is not given back"),
        (M::NoAudit, "no-audit", "the store's holds are never compared with one's own"),
        (M::NoPoll, "no-poll", "what is waited for is never read"),
        (M::BreakEvicts, "break-evicts", "an operator's break evicts a holder that has not answered"),
        (M::BreakUnheard, "break-unheard", "a holder ignores that it was asked to go"),
        (
            M::EarlyBreakForgotten,
            "early-break-forgotten",
            "a holder forgets that it was asked to go before it knew that it holds",
        ),
        (M::EvictionUntold, "eviction-untold", "a holder does not notice that the store has somebody else"),
        (
            M::ReleaseWithoutHandOver,
            "release-without-hand-over",
            "a release leaves the lock free although somebody waits",
        ),
        (M::ReleaseEvictsAnyHolder, "release-evicts-any-holder", "a release frees the lock whoever holds it by then"),
        (M::TryWaitsBehindPurge, "try-waits-behind-purge", "a try is queued when the step removed a dead holder"),
        (M::TokenWithoutFloor, "token-without-floor", "a token is only one more than the record's last"),
        (M::CollectWithoutFloor, "collect-without-floor", "a free record is collected whatever its token is"),
        (M::CollectByDate, "collect-by-date", "a record is collected when the date has passed its token"),
        (M::UncommittedAcknowledged, "uncommitted-acknowledged", "the store acknowledges what a majority has not"),
        (M::LocalRead, "local-read", "the store shows what a majority has not"),
        (M::ClockStandsStill, "clock-stands-still", "the deadline's clock stands still while the host sleeps"),
        (M::TermKeptInHandOver, "term-kept-in-hand-over", "a leader goes on believing while it hands over"),
        (M::LeadsUnpublished, "leads-unpublished", "a leader is told that it leads before its value is there"),
        (M::StoryWithoutPause, "story-without-pause", "an observer is not told that nobody leads between two terms"),
        (M::PriorityIgnored, "priority-ignored", "whoever comes waits at the end, whatever its priority"),
        (
            M::ServerClockExpiry,
            "server-clock-expiry",
            "a session is dead when the store's date has passed its latest renewal's plus its ttl",
        ),
        (M::StaleProvide, "stale-provide", "a provider's step is applied after a later one of its session"),
        (
            M::LateLossForgets,
            "late-loss-forgets",
            "word of a lost session makes a provider forget that its successor's record has it",
        ),
        (M::NotReregistered, "not-reregistered", "a provider is not registered again after its session was lost"),
        (M::NoCallLimit, "no-call-limit", "a call of the store waits for its answer for as long as it takes"),
        (
            M::WithdrawalBelieved,
            "withdrawal-believed",
            "a withdrawal that finds nothing is believed, although its acquire may come after it",
        ),
        (M::GrantToTheLast, "grant-to-the-last", "a claim that becomes free goes to the last of those who wait"),
    ]
};

/// Every mutant that is the crash matrix's: what the dead have left stays, or is forgotten.
pub const OF_CRASHES: [(Mutant, &str, &str); 5] = {
    use Mutant as M;
    [
        (M::UnbornStay, "unborn-stay", "the lock file of a process stays that died before its session was opened"),
        (
            M::ListenersStay,
            "listeners-stay",
            "nobody finds out that a listener has died to whom there is nothing to tell",
        ),
        (M::TransactionsStay, "transactions-stay", "a transaction of the dead is left to the server"),
        (M::MailsStay, "mails-stay", "the mails of a sender that died are nobody's"),
        (M::MailDoubtForgotten, "mail-doubt-forgotten", "a mail is sent again as if the dead sender had not begun"),
    ]
};

#[cfg(feature = "mutants")]
static CURRENT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether this mutant is switched on, in the whole process.
#[cfg(feature = "mutants")]
#[inline]
pub fn on(mutant: Mutant) -> bool {
    CURRENT.load(std::sync::atomic::Ordering::Relaxed) == mutant as u8
}

/// Whether this mutant is switched on: never, without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn on(_: Mutant) -> bool {
    false
}

/// Switches on the mutant of this name, in the whole process, instead of the one before; with none, switches off.
/// Returns whether there is one of that name.
#[cfg(feature = "mutants")]
pub fn set(name: Option<&str>) -> bool {
    let number = match name {
        None => Some(0),
        Some(name) => {
            let mut all = ALL.iter().chain(&OF_CRASHES);
            all.find(|(_, known, _)| *known == name).map(|(mutant, ..)| *mutant as u8)
        }
    };
    if let Some(number) = number {
        CURRENT.store(number, std::sync::atomic::Ordering::Relaxed);
    }
    number.is_some()
}

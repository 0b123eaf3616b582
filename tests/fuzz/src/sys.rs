//! Calls of the C interface, as a C program makes them: each handle is 64 bits that may be anything, while pointers to
//! text and for results are valid, as the header asks of its callers.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::ptr::null_mut;

use coord::cancel::*;
use coord::client::*;
use coord::config::*;
use coord::error::*;
use coord::event::*;
use coord::held::*;
use coord::listing::*;
use coord::lock::*;
use coord::queue::*;
use coord::session::*;
use coord::stats::*;
use once_cell::sync::Lazy;

use crate::input::Input;

/// A folder of this process, in memory where that is possible; the next run removes what is left in it.
pub(crate) fn scratch() -> PathBuf {
    static FOLDER: Lazy<PathBuf> = Lazy::new(|| {
        let base = std::env::temp_dir();
        if let Ok(entries) = std::fs::read_dir(&base) {
            for entry in entries.filter_map(Result::ok) {
                let name = entry.file_name();
                let owner = name.to_str().and_then(|name| name.strip_prefix("coord-fuzz-")?.parse::<i32>().ok());
                let gone = |pid| {
                    rustix::process::Pid::from_raw(pid)
                        .is_some_and(|pid| rustix::process::test_kill_process(pid).is_err())
                };
                if owner.is_some_and(gone) {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
            }
        }
        let folder = base.join(format!("coord-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    });
    FOLDER.clone()
}

/// The kinds of handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Config,
    Client,
    Lock,
    Held,
    Queue,
    Cancel,
    Op,
    Event,
    Error,
    Session,
    Stats,
    List,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Config,
        Self::Client,
        Self::Lock,
        Self::Held,
        Self::Queue,
        Self::Cancel,
        Self::Op,
        Self::Event,
        Self::Error,
        Self::Session,
        Self::Stats,
        Self::List,
    ];
}

/// The handles that calls have given, destroyed or not.
#[derive(Debug, Default)]
pub(crate) struct Handles(Vec<(Kind, u64)>);

/// A place for a result.
struct Place<T>(*mut T);

impl<T> Place<T> {
    fn new() -> Self {
        Self(null_mut())
    }

    fn out(&mut self) -> *mut *mut T {
        &raw mut self.0
    }
}

impl Handles {
    fn keep<T>(&mut self, kind: Kind, place: &Place<T>) {
        if !place.0.is_null() {
            self.0.push((kind, place.0 as u64));
        }
    }

    /// One of this kind more often than not; sometimes one of any, sometimes one that was made up.
    fn pick<T>(&self, kind: Kind, input: &mut Input<'_>) -> *mut T {
        let choice = input.byte();
        let of_kind: Vec<u64> = self.0.iter().filter(|(of, _)| *of == kind).map(|(_, bits)| *bits).collect();
        let bits = match choice {
            0..=199 if !of_kind.is_empty() => of_kind[of_kind.len() - 1 - usize::from(choice) % of_kind.len().min(5)],
            200..=239 if !self.0.is_empty() => self.0[usize::from(choice) % self.0.len()].1,
            240..=247 => input.number().cast_unsigned(),
            248..=251 => self.0.last().map_or(1, |(_, bits)| bits ^ 1 << (choice % 64)),
            _ => 0,
        };
        bits as *mut T
    }

    #[cfg(test)]
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.0.iter().filter(|(of, _)| *of == kind).count()
    }

    /// Every handle, also those that are destroyed already.
    pub(crate) fn destroy_all(&mut self) {
        for (kind, bits) in std::mem::take(&mut self.0) {
            destroy(kind, bits);
        }
    }
}

/// Waits of at most this long, and some that are no time at all.
fn timeout(input: &mut Input<'_>) -> i64 {
    [0, 1, 2, 5, -2, i64::MIN][input.below(6)]
}

/// For what is not waited for here.
fn any_timeout(input: &mut Input<'_>) -> i64 {
    [0, 1, 20, -1, i64::MAX, -2][input.below(6)]
}

fn text(bytes: &[u8]) -> (*const c_char, usize) {
    (bytes.as_ptr().cast(), bytes.len())
}

/// Makes a client of this store, and a queue, so that there is something to begin with.
pub(crate) fn begin(url: &str, handles: &mut Handles) {
    let (url, length) = text(url.as_bytes());
    let (mut config, mut client, mut queue, mut error) = (Place::new(), Place::new(), Place::new(), Place::new());
    // SAFETY: see the module.
    unsafe {
        coord_config_new(coord::version::COORD_ABI_VERSION, url, length, config.out(), error.out());
        coord_client_connect(config.0, 30_000, null_mut(), client.out(), error.out());
        coord_queue_new(queue.out(), error.out());
    }
    handles.keep(Kind::Config, &config);
    handles.keep(Kind::Client, &client);
    handles.keep(Kind::Queue, &queue);
    handles.keep(Kind::Error, &error);
}

const NAMES: [&str; 6] = ["a", "b", "a/b", "", "no name", "x/y/z/w"];

/// One call.
pub(crate) fn call(handles: &mut Handles, input: &mut Input<'_>) {
    let h = &*handles;
    let (mut config, mut client, mut lock, mut held) = (Place::new(), Place::new(), Place::new(), Place::new());
    let (mut queue, mut cancel, mut op, mut event) = (Place::new(), Place::new(), Place::new(), Place::new());
    let (mut error, mut session, mut stats, mut list) = (Place::new(), Place::new(), Place::new(), Place::new());
    let any_name = input.text();
    let name = if any_name.is_empty() { NAMES[input.below(NAMES.len())] } else { &any_name };
    let (name, length) = text(name.as_bytes());
    let err = if input.byte() < 230 { error.out() } else { null_mut() };
    let mut number = 0;
    let mut count = 0;
    // SAFETY: see the module.
    unsafe {
        use Kind::*;
        match input.below(56) {
            0 => drop(coord_config_new(input.number() as u32, name, length, config.out(), err)),
            1 => {
                let (value, value_length) = text(input.piece());
                coord_config_set(h.pick(Config, input), name, length, value, value_length, err);
            }
            2 => {
                let mut buffer = [0; 300];
                coord_name_sanitize(name, length, buffer.as_mut_ptr(), input.below(300), err);
            }
            3 => drop(coord_cancel_new(cancel.out(), err)),
            4 => coord_cancel_fire(h.pick(Cancel, input)),
            5 => drop(coord_cancel_is_fired(h.pick(Cancel, input))),
            6 => {
                let (of, limit) = (h.pick(Client, input), timeout(input));
                coord_client_open_session(of, limit, h.pick(Cancel, input), client.out(), err);
            }
            7 => {
                let (of, limit, to) = (h.pick(Client, input), any_timeout(input), h.pick(Queue, input));
                coord_client_open_session_start(of, limit, to, input.number() as u64, op.out(), err);
            }
            8 => drop(coord_client_close(h.pick(Client, input), timeout(input), err)),
            9 => {
                let (of, limit, to) = (h.pick(Client, input), any_timeout(input), h.pick(Queue, input));
                coord_client_close_start(of, limit, to, 9, op.out(), err);
            }
            10 => drop(coord_client_is_open(h.pick(Client, input))),
            11 => drop(coord_client_health(h.pick(Client, input), timeout(input), h.pick(Cancel, input), err)),
            12 => {
                let (of, limit, to) = (h.pick(Client, input), any_timeout(input), h.pick(Queue, input));
                coord_client_health_start(of, limit, to, 12, op.out(), err);
            }
            13 => {
                let (of, token, force) = (h.pick(Client, input), input.number(), i32::from(input.byte()));
                coord_client_break_lock(of, name, length, token, force, timeout(input), h.pick(Cancel, input), err);
            }
            14 => {
                let (of, token, limit) = (h.pick(Client, input), input.number(), any_timeout(input));
                let to = h.pick(Queue, input);
                coord_client_break_lock_start(of, name, length, token, 1, limit, to, 14, op.out(), err);
            }
            15 => drop(coord_client_session(h.pick(Client, input), session.out(), err)),
            16 => drop(coord_client_session_state(h.pick(Client, input))),
            17 => {
                let (of, seen, limit) = (h.pick(Client, input), h.pick(Session, input), timeout(input));
                coord_client_session_wait(of, seen, limit, h.pick(Cancel, input), session.out(), err);
            }
            18 => {
                let (of, seen, to) = (h.pick(Client, input), h.pick(Session, input), h.pick(Queue, input));
                coord_client_session_wait_start(of, seen, to, 18, op.out(), err);
            }
            19 => drop(coord_session_state(h.pick(Session, input))),
            20 => read(coord_session_id(h.pick(Session, input))),
            21 => read(coord_session_name(h.pick(Session, input))),
            22..=25 => drop(coord_lock_new(h.pick(Client, input), name, length, lock.out(), err)),
            26 => read(coord_lock_name(h.pick(Lock, input))),
            27 | 28 => {
                let (of, limit) = (h.pick(Lock, input), timeout(input));
                coord_lock_acquire(of, limit, h.pick(Cancel, input), held.out(), err);
            }
            29 => drop(coord_lock_try_acquire(h.pick(Lock, input), h.pick(Cancel, input), held.out(), err)),
            30..=33 => {
                let (of, limit, to) = (h.pick(Lock, input), any_timeout(input), h.pick(Queue, input));
                coord_lock_acquire_start(of, limit, to, input.number() as u64, op.out(), err);
            }
            34 => {
                let (of, limit, by) = (h.pick(Lock, input), timeout(input), h.pick(Cancel, input));
                coord_lock_run(of, limit, by, Some(check_it), null_mut(), &raw mut number, err);
            }
            35 => read(coord_held_name(h.pick(Held, input))),
            36 => drop(coord_held_token(h.pick(Held, input))),
            37 => drop(coord_held_check(h.pick(Held, input), err)),
            38 => {
                let (of, duration, limit) = (h.pick(Held, input), input.number(), timeout(input));
                coord_held_ensure(of, duration, limit, h.pick(Cancel, input), err);
            }
            39 => {
                let (of, duration, limit) = (h.pick(Held, input), input.number(), any_timeout(input));
                coord_held_ensure_start(of, duration, limit, h.pick(Queue, input), 39, op.out(), err);
            }
            40 => drop(coord_held_manage(h.pick(Held, input), err)),
            41 => {
                let (of, limit) = (h.pick(Held, input), timeout(input));
                coord_held_wait_lost(of, limit, h.pick(Cancel, input), &raw mut number, err);
            }
            42 => drop(coord_held_wait_lost_start(h.pick(Held, input), h.pick(Queue, input), 42, op.out(), err)),
            43 | 44 => {
                let (of, limit) = (h.pick(Held, input), timeout(input));
                coord_held_release(of, limit, h.pick(Cancel, input), err);
            }
            45 => {
                let (of, limit, to) = (h.pick(Held, input), any_timeout(input), h.pick(Queue, input));
                coord_held_release_start(of, limit, to, 45, op.out(), err);
            }
            46 => drop(coord_queue_new(queue.out(), err)),
            47 => drop(coord_queue_fd(h.pick(Queue, input))),
            48..=50 => drop(coord_queue_poll(h.pick(Queue, input), timeout(input), event.out(), err)),
            51 => {
                let mut events = [null_mut(); 4];
                let (of, limit, capacity) = (h.pick(Queue, input), timeout(input), input.below(5));
                coord_queue_poll_batch(of, limit, events.as_mut_ptr(), capacity, &raw mut count, err);
                events.iter().for_each(|event| destroy(Event, *event as u64));
            }
            52 => match input.below(4) {
                0 => coord_queue_yield(h.pick(Queue, input)),
                1 => coord_op_cancel(h.pick(Op, input)),
                2 => coord_queue_skip_ended(h.pick(Queue, input)),
                _ => drop(coord_op_take_event(h.pick(Op, input), event.out(), err)),
            },
            53 => {
                let of: *mut coord_event_t = h.pick(Event, input);
                let _ = (coord_event_type(of), coord_event_tag(of), coord_event_status(of), coord_event_loss(of));
                read(coord_error_message(coord_event_error(of)));
                match input.below(4) {
                    0 => drop(coord_event_take_client(of, client.out(), err)),
                    1 => drop(coord_event_take_held(of, held.out(), err)),
                    2 => drop(coord_event_take_locks(of, list.out(), err)),
                    _ => drop(coord_event_take_session(of, session.out(), err)),
                }
            }
            54 => {
                let of = h.pick(Client, input);
                if input.byte() < 128 {
                    coord_client_locks(of, name, length, timeout(input), null_mut(), list.out(), err);
                } else {
                    coord_client_lock_info(of, name, length, timeout(input), null_mut(), list.out(), err);
                }
                coord_client_stats(of, stats.out(), err);
                look_at(h.pick(List, input), input);
                coord_stats_value(h.pick(Stats, input), i32::from(input.byte()));
            }
            _ => {
                let kind = Kind::ALL[input.below(Kind::ALL.len())];
                destroy(kind, h.pick::<c_void>(kind, input) as u64);
            }
        }
    }
    handles.keep(Kind::Config, &config);
    handles.keep(Kind::Client, &client);
    handles.keep(Kind::Lock, &lock);
    handles.keep(Kind::Held, &held);
    handles.keep(Kind::Queue, &queue);
    handles.keep(Kind::Cancel, &cancel);
    handles.keep(Kind::Op, &op);
    handles.keep(Kind::Event, &event);
    handles.keep(Kind::Session, &session);
    handles.keep(Kind::Stats, &stats);
    handles.keep(Kind::List, &list);
    if !error.0.is_null() {
        assert_ne!(coord_error_code(error.0), coord_core::error::Code::Panic.number(), "a defect was caught");
        read(coord_error_message(error.0));
        if let (Some((Kind::Error, _)), true) = (handles.0.first().copied(), handles.0.len() > 60) {
            handles.0.remove(0);
        }
        handles.keep(Kind::Error, &error);
    }
}

unsafe extern "C" fn check_it(held: *mut coord_held_t, _: *mut c_void) -> i32 {
    // SAFETY: a handle is checked, and NULL is allowed for the error.
    unsafe { coord_held_check(held, null_mut()) }
}

/// A text that the library has given is whole.
fn read(text: *const c_char) {
    if !text.is_null() {
        // SAFETY: the header promises text that ends with NUL for as long as its object lives.
        assert!(unsafe { std::ffi::CStr::from_ptr(text) }.to_str().is_ok(), "a text is not UTF-8");
    }
}

fn look_at(list: *mut coord_lock_list_t, input: &mut Input<'_>) {
    let index = input.below(4);
    let _ = (coord_lock_list_count(list), coord_lock_list_token(list, index));
    read(coord_lock_list_name(list, index));
    for holder in [coord_lock_list_holder(list, index), coord_lock_list_waiter(list, index, input.below(3))] {
        read(coord_holder_name(holder));
        read(coord_holder_session(holder));
        let _ = (coord_holder_token(holder), coord_holder_state(holder), coord_holder_is_self(holder));
    }
}

fn destroy(kind: Kind, bits: u64) {
    match kind {
        Kind::Config => coord_config_destroy(bits as *mut _),
        Kind::Client => coord_client_destroy(bits as *mut _),
        Kind::Lock => coord_lock_destroy(bits as *mut _),
        Kind::Held => coord_held_destroy(bits as *mut _),
        Kind::Queue => coord_queue_destroy(bits as *mut _),
        Kind::Cancel => coord_cancel_destroy(bits as *mut _),
        Kind::Op => coord_op_destroy(bits as *mut _),
        Kind::Event => coord_event_destroy(bits as *mut _),
        Kind::Error => coord_error_destroy(bits as *mut _),
        Kind::Session => coord_session_destroy(bits as *mut _),
        Kind::Stats => coord_stats_destroy(bits as *mut _),
        Kind::List => coord_lock_list_destroy(bits as *mut _),
    }
}

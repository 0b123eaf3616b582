//! What the interface does without a client: texts and results across the border, handles, errors, options, tokens,
//! queues. Nothing here needs a thread of the library, a socket or a file, so Miri can run it: `make miri`. There each
//! text ends where its memory does, so that a byte too many is an error.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

use coord::cancel::{coord_cancel_destroy, coord_cancel_fire, coord_cancel_is_fired, coord_cancel_new, coord_cancel_t};
use coord::client::{
    coord_client_close, coord_client_connect, coord_client_destroy, coord_client_is_open, coord_client_t,
};
use coord::config::{
    COORD_NAME_SIZE, coord_config_destroy, coord_config_new, coord_config_set, coord_config_t, coord_name_sanitize,
};
use coord::error::{
    COORD_E_HANDLE, COORD_E_INVALID_ARGUMENT, COORD_E_TIMEOUT, COORD_OK, coord_error_code, coord_error_destroy,
    coord_error_holder, coord_error_loss, coord_error_message, coord_error_name, coord_error_t, coord_status_name,
    coord_status_t,
};
use coord::event::{coord_event_destroy, coord_event_error, coord_event_status, coord_event_t, coord_event_tag};
use coord::held::{coord_held_check, coord_held_destroy, coord_held_name, coord_held_t, coord_held_token};
use coord::lock::{coord_lock_destroy, coord_lock_name, coord_lock_new, coord_lock_t};
use coord::options::{
    coord_options_destroy, coord_options_new, coord_options_set_document, coord_options_set_number,
    coord_options_set_text, coord_options_t,
};
use coord::queue::{
    coord_queue_destroy, coord_queue_fd, coord_queue_new, coord_queue_poll, coord_queue_poll_batch, coord_queue_t,
    coord_queue_yield,
};
use coord::text::{coord_text_data, coord_text_length, coord_text_t};
use coord::version::{COORD_ABI_VERSION, coord_version_string};

/// For the length of a text that ends with a zero.
const COORD_NUL: usize = usize::MAX;

/// A text in memory of its own, exactly as long as it is.
struct Given(Box<[u8]>);

impl Given {
    fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(bytes.as_ref().into())
    }

    fn start(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }

    fn bytes(&self) -> *const c_void {
        self.0.as_ptr().cast()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// A text that the library lends.
fn lent(start: *const c_char) -> String {
    assert!(!start.is_null());
    // SAFETY: it ends with a zero, and its object lives.
    unsafe { CStr::from_ptr(start) }.to_str().unwrap().to_owned()
}

/// The call gives this status, and an error that says the same; or none, for `COORD_OK`.
fn gives(expected: coord_status_t, call: impl FnOnce(*mut *mut coord_error_t) -> coord_status_t) -> String {
    let mut err: *mut coord_error_t = null_mut();
    let status = call(&raw mut err);
    let message = lent(coord_error_message(err));
    assert_eq!(status, expected, "{message}");
    assert_eq!(coord_error_code(err), expected);
    assert_eq!(err.is_null(), expected == COORD_OK);
    if !err.is_null() {
        assert_eq!(lent(coord_error_name(err)), lent(coord_status_name(expected)));
        assert_eq!(coord_error_loss(err), 0);
        assert!(coord_error_holder(err).is_null() && !message.is_empty());
        coord_error_destroy(err);
        assert_eq!(coord_error_code(err), COORD_OK, "it is gone");
        coord_error_destroy(err);
    }
    message
}

fn queue() -> *mut coord_queue_t {
    let mut queue = null_mut();
    // SAFETY: the places are ours.
    gives(COORD_OK, |err| unsafe { coord_queue_new(&raw mut queue, err) });
    queue
}

fn cancel() -> *mut coord_cancel_t {
    let mut cancel = null_mut();
    // SAFETY: the places are ours.
    gives(COORD_OK, |err| unsafe { coord_cancel_new(&raw mut cancel, err) });
    cancel
}

fn config(url: &[u8], length: usize) -> (coord_status_t, *mut coord_config_t) {
    let (url, mut config) = (Given::new(url), null_mut());
    // SAFETY: the text has that length, or a zero at its end.
    let status = unsafe { coord_config_new(COORD_ABI_VERSION, url.start(), length, &raw mut config, null_mut()) };
    (status, config)
}

#[test]
fn texts_are_read_to_their_end_and_no_further() {
    for (url, length) in [(&b"memory:a"[..], 8), (b"memory:a\0", COORD_NUL), (b"memory:a and more", 8)] {
        let (status, config) = config(url, length);
        assert_eq!(status, COORD_OK);
        let (key, value) = (Given::new("ttl"), Given::new("30s5\0"));
        // SAFETY: the texts have these lengths.
        gives(COORD_OK, |err| unsafe { coord_config_set(config, key.start(), 3, value.start(), 3, err) });
        let message = gives(COORD_E_INVALID_ARGUMENT, |err| {
            // SAFETY: as above.
            unsafe { coord_config_set(config, key.start(), 3, value.start(), COORD_NUL, err) }
        });
        assert!(message.contains("30s5'"), "{message}");
        coord_config_destroy(config);
        coord_config_destroy(config);
        gives(COORD_E_HANDLE, |err| {
            // SAFETY: as above.
            unsafe { coord_config_set(config, key.start(), 3, value.start(), 3, err) }
        });
    }
    for (url, length) in [(&b"\xff"[..], 1), (b"\0", COORD_NUL), (b"no url", 6), (b"", 0), (b"", usize::MAX - 1)] {
        assert_eq!(config(url, length).0, COORD_E_INVALID_ARGUMENT, "{url:?}");
    }
    let long = vec![b'a'; 70_000];
    assert_eq!(config(&long, long.len()).0, COORD_E_INVALID_ARGUMENT);
    assert!(!lent(coord_version_string()).is_empty());
}

#[test]
fn a_name_fills_its_room_and_no_more() {
    let sanitize = |text: &str, room: &mut [c_char]| {
        let text = Given::new(text);
        // SAFETY: the text and the room have these lengths.
        unsafe { coord_name_sanitize(text.start(), text.len(), room.as_mut_ptr(), room.len(), null_mut()) }
    };
    let mut whole = [7; COORD_NAME_SIZE];
    assert_eq!(sanitize("Grün/7 \u{1f512}", &mut whole), COORD_OK);
    let length = whole.iter().position(|byte| *byte == 0).unwrap();
    let mut exact = vec![7; length + 1].into_boxed_slice();
    assert_eq!(sanitize("Grün/7 \u{1f512}", &mut exact), COORD_OK);
    assert_eq!(exact[..], whole[..=length]);
    for room in [&mut exact[..length], &mut []] {
        assert_eq!(sanitize("Grün/7 \u{1f512}", room), COORD_E_INVALID_ARGUMENT);
    }
    assert_eq!(sanitize(&"é".repeat(400), &mut whole), COORD_OK);
}

#[test]
fn options_keep_copies_of_what_they_are_given() {
    let mut options: *mut coord_options_t = null_mut();
    // SAFETY: the places are ours, and the texts have these lengths.
    unsafe {
        gives(COORD_OK, |err| coord_options_new(&raw mut options, err));
        for n in 0..3 {
            let (name, value) = (Given::new(format!("name{n}")), Given::new(b"\x05\0\0\0\0"));
            gives(COORD_OK, |err| {
                coord_options_set_document(options, name.start(), name.len(), value.bytes(), value.len(), err)
            });
            gives(COORD_OK, |err| coord_options_set_number(options, name.start(), name.len(), -1, err));
            gives(COORD_E_INVALID_ARGUMENT, |err| {
                coord_options_set_text(options, name.start(), name.len(), null(), 0, err)
            });
            gives(COORD_E_INVALID_ARGUMENT, |err| {
                coord_options_set_text(options, null(), 0, name.start(), name.len(), err)
            });
            gives(COORD_E_INVALID_ARGUMENT, |err| {
                coord_options_set_document(options, name.start(), name.len(), null(), 5, err)
            });
        }
    }
    coord_options_destroy(options);
    coord_options_destroy(null_mut());
}

/// Whatever a handle is, it is looked up and never followed.
#[test]
fn wrong_handles_are_errors_and_never_accesses() {
    let (queue, cancel) = (queue(), cancel());
    let on_heap = Box::new([0_u64; 4]);
    let mut values = vec![0, 1, 3, u64::MAX, 1 << 63 | 1, &raw const on_heap[1] as u64, queue as u64, cancel as u64];
    let mut bits = 1_u64;
    for _ in 0..if cfg!(miri) { 4 } else { 200 } {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        values.push(bits);
    }
    for value in values {
        let (name, mut lock, mut event) = (Given::new("a"), null_mut::<coord_lock_t>(), null_mut::<coord_event_t>());
        // SAFETY: the places are ours, the text has its length, and handles may be anything.
        unsafe {
            let client = value as *mut coord_client_t;
            gives(COORD_E_HANDLE, |err| coord_lock_new(client, name.start(), name.len(), &raw mut lock, err));
            gives(COORD_E_HANDLE, |err| coord_client_close(client, 0, err));
            let mut connected = null_mut();
            gives(COORD_E_HANDLE, |err| {
                coord_client_connect(value as *mut coord_config_t, 0, null_mut(), &raw mut connected, err)
            });
            assert!(connected.is_null());
            gives(COORD_E_HANDLE, |err| coord_held_check(value as *mut coord_held_t, err));
            if value != queue as u64 {
                gives(COORD_E_HANDLE, |err| coord_queue_poll(value as *mut _, 0, &raw mut event, err));
                assert_eq!(coord_queue_fd(value as *mut _), -1);
            }
        }
        assert!(lock.is_null() && event.is_null());
        assert_eq!(coord_client_is_open(value as *mut _), 0);
        assert_eq!((coord_held_token(value as *mut _), lent(coord_held_name(value as *mut _))), (0, String::new()));
        assert_eq!(lent(coord_lock_name(value as *mut _)), "");
        assert_eq!(
            (lent(coord_text_data(value as *const coord_text_t)), coord_text_length(value as *const _)),
            (String::new(), 0)
        );
        assert_eq!((coord_event_status(value as *mut _), coord_event_tag(value as *mut _)), (COORD_E_HANDLE, 0));
        assert!(coord_event_error(value as *mut _).is_null());
        coord_held_destroy(value as *mut _);
        coord_lock_destroy(value as *mut _);
        coord_client_destroy(value as *mut _);
        coord_event_destroy(value as *mut _);
    }
    assert_eq!(coord_cancel_is_fired(cancel), 0, "it was nobody else's");
    coord_cancel_destroy(cancel);
    coord_queue_destroy(queue);
}

#[test]
fn threads_share_tokens_errors_and_queues() {
    let (cancel, queue) = (cancel() as u64, queue() as u64);
    let threads: Vec<_> = (0..3)
        .map(|n| {
            std::thread::spawn(move || {
                for _ in 0..5 {
                    let mut events = [null_mut(); 4];
                    let mut count = 9;
                    gives(COORD_E_TIMEOUT, |err| {
                        // SAFETY: the places are ours.
                        unsafe {
                            coord_queue_poll_batch(queue as *mut _, 0, events.as_mut_ptr(), 4, &raw mut count, err)
                        }
                    });
                    assert_eq!(count, 9, "nothing is written without success");
                    gives(COORD_E_INVALID_ARGUMENT, |err| {
                        // SAFETY: there is no room for the results, which is told by the length.
                        unsafe { coord_queue_poll_batch(queue as *mut _, 0, null_mut(), 4, &raw mut count, err) }
                    });
                }
                if n == 0 {
                    coord_cancel_fire(cancel as *mut _);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(coord_cancel_is_fired(cancel as *mut _), 1);
    coord_cancel_destroy(cancel as *mut _);
    coord_queue_destroy(queue as *mut _);
}

/// Whoever waits at a queue is told when it ends, and by a yield.
#[test]
fn a_poll_that_waits_is_ended_by_others() {
    for ends in [coord_queue_yield as extern "C" fn(*mut coord_queue_t), coord_queue_destroy] {
        let queue = queue() as u64;
        let polls = std::thread::spawn(move || {
            let mut event = null_mut();
            // SAFETY: the place is ours.
            let status = unsafe { coord_queue_poll(queue as *mut _, 30_000, &raw mut event, null_mut()) };
            assert!([COORD_E_TIMEOUT, COORD_E_HANDLE].contains(&status), "{status}");
            assert!(event.is_null());
        });
        ends(queue as *mut _);
        polls.join().unwrap();
        coord_queue_destroy(queue as *mut _);
    }
}

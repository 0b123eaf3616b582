//! A convenience over the queue: a thread of its own takes the events and gives each to a function.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use coord_core::driver::spawn_thread;
use coord_core::error::Error;

use crate::boundary::{Inside, call_out, fallible};
use crate::bytes::Out;
use crate::error::{coord_error_t, coord_status_t};
use crate::event::coord_event_t;
use crate::handle;
use crate::queue::{QueueObject, coord_queue_t};
use crate::sys::{UserData, coord_destroy_cb};

/// Gets an event, and owns it.
///
/// MUST return in finite time, and MUST NOT throw. MAY call everything but coord_client_close and coord_queue_poll,
/// and MAY destroy the queue. Calls never overlap.
pub type coord_event_cb = Option<unsafe extern "C" fn(event: *mut coord_event_t, user_data: *mut c_void)>;

/// Gives every event of a queue to `callback`, one after another on a thread of the library, until the queue is
/// destroyed. The queue cannot be polled any more. `destroy`, which may be NULL, gets `user_data` exactly once: after
/// the last call has returned, or before this call returns if it fails.
///
/// `user_data` that owns the queue keeps itself alive: destroy the queue first.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the library owns `user_data` until it calls `destroy`
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_queue_set_callback(
    queue: *mut coord_queue_t,
    callback: coord_event_cb,
    user_data: *mut c_void,
    destroy: coord_destroy_cb,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (user_data, err) = unsafe { (UserData::new(user_data, destroy), Out::lent(err)) };
    fallible(err, move || {
        let callback = callback.ok_or_else(|| Error::invalid("callback is NULL"))?;
        let queue = handle::get::<QueueObject>(queue)?;
        queue.claim_for_callback()?;
        // A poll that waits already must not take what is the callback's.
        queue.events().wake();
        let events = Arc::clone(&queue);
        let deliver = move || {
            while !events.is_ended() {
                let Some(event) = events.events().poll(None) else { continue };
                let event = handle::issue(event);
                // SAFETY: the caller registered the function for calls on this thread, with this data.
                call_out(Inside::EventCallback, || unsafe { callback(event, user_data.get()) });
            }
            drop(user_data);
        };
        static THREADS: AtomicU64 = AtomicU64::new(0);
        spawn_thread(&format!("coord-cb-{}", THREADS.fetch_add(1, Relaxed)), deliver).inspect_err(|_| queue.unclaim())
    })
}

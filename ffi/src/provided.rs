//! Providers as an observer sees them.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr;

use coord_core::observer::ProviderInfo;

use crate::boundary::{quiet, value};
use crate::bytes::{Lent, empty};
use crate::handle::{self, Owned, object};
use crate::labels::Labels;

/// The providers of a service at one moment. What it lends is valid until it is destroyed.
pub struct coord_provider_list_t;

/// A provider as an observer sees it. Belongs to the list or the event that lends it; what it lends lives as long.
pub struct coord_provider_info_t;

pub(crate) struct ProviderListObject(Vec<Owned<ProviderInfoObject>>);

pub(crate) struct ProviderInfoObject {
    service: Lent,
    instance_id: Lent,
    session: Lent,
    name: Lent,
    host: Lent,
    pid: u32,
    labels: Labels,
    metadata: Lent,
}

object!(ProviderInfoObject, coord_provider_info_t, 19, "provider's description");
object!(ProviderListObject, coord_provider_list_t, 20, "list of providers");

impl ProviderListObject {
    pub(crate) fn new(providers: &[ProviderInfo]) -> Self {
        Self(providers.iter().map(|provider| Owned::new(ProviderInfoObject::new(provider))).collect())
    }
}

impl ProviderInfoObject {
    pub(crate) fn new(provider: &ProviderInfo) -> Self {
        Self {
            service: Lent::new(&provider.service),
            instance_id: Lent::new(&provider.instance_id),
            session: Lent::new(&provider.session),
            name: Lent::new(&provider.name),
            host: Lent::new(&provider.host),
            pid: provider.pid,
            labels: Labels::new(&provider.labels),
            metadata: Lent::new(&provider.metadata),
        }
    }
}

/// How many providers there are in the list; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_list_count(list: *const coord_provider_list_t) -> usize {
    read_list(list, 0, |l| l.0.len())
}

/// The provider at this place; NULL beyond the end. Belongs to the list.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_list_at(
    list: *const coord_provider_list_t,
    index: usize,
) -> *const coord_provider_info_t {
    read_list(list, ptr::null(), |l| l.0.get(index).map_or(ptr::null(), Owned::handle))
}

/// Destroys a list and all that it lent. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `list`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_list_destroy(list: *mut coord_provider_list_t) {
    quiet(|| handle::take::<ProviderListObject>(list).map(drop));
}

/// The full name of the service.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_service(provider: *const coord_provider_info_t) -> *const c_char {
    read_info(provider, empty(), |p| p.service.start())
}

/// What tells it apart from others of the service in the same session.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_instance_id(provider: *const coord_provider_info_t) -> *const c_char {
    read_info(provider, empty(), |p| p.instance_id.start())
}

/// The id of its session, 32 hexadecimal digits, new at every start of a client.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_session(provider: *const coord_provider_info_t) -> *const c_char {
    read_info(provider, empty(), |p| p.session.start())
}

/// The name that its client was given; empty if none was.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_name(provider: *const coord_provider_info_t) -> *const c_char {
    read_info(provider, empty(), |p| p.name.start())
}

/// The host that it reported.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_host(provider: *const coord_provider_info_t) -> *const c_char {
    read_info(provider, empty(), |p| p.host.start())
}

/// What it says of itself.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_metadata(provider: *const coord_provider_info_t) -> *const c_char {
    read_info(provider, empty(), |p| p.metadata.start())
}

/// Its process id on its host; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_pid(provider: *const coord_provider_info_t) -> u32 {
    read_info(provider, 0, |p| p.pid)
}

/// How many labels its client was given.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_label_count(provider: *const coord_provider_info_t) -> usize {
    read_info(provider, 0, |p| p.labels.count())
}

/// The key of the label at this place, in the order of the keys; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_label_key(provider: *const coord_provider_info_t, index: usize) -> *const c_char {
    read_info(provider, empty(), |p| p.labels.key(index))
}

/// The value of the label at this place; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_info_label_value(
    provider: *const coord_provider_info_t,
    index: usize,
) -> *const c_char {
    read_info(provider, empty(), |p| p.labels.value(index))
}

fn read_list<T>(list: *const coord_provider_list_t, neutral: T, body: impl FnOnce(&ProviderListObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<ProviderListObject>(list)?)))
}

fn read_info<T>(info: *const coord_provider_info_t, neutral: T, body: impl FnOnce(&ProviderInfoObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<ProviderInfoObject>(info)?)))
}

//! Handles: checked values in place of addresses.
//!
//! A handle is the number of a slot, the generation of what is in it, and the kind of object, packed into the 64 bits
//! of an opaque pointer that is never dereferenced. A slot's generation grows when its object is destroyed, and a slot
//! whose generations are used up is retired, so a destroyed handle never becomes another object's. Every handle is
//! odd: no address of an allocation can be taken for one.
//!
//! A table is split into shards, each with a read-write lock of its own, and neighbouring handles lie in different
//! shards. No lock is held while an object is used or dropped.
//!
//! Lacks on purpose: shrinking. Slots of destroyed objects are used again, and never given back.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use coord_core::error::{Code, Error, Result};

/// What a handle can stand for.
pub(crate) trait Object: Sized + Send + Sync + 'static {
    /// The opaque type in the header.
    type C;
    /// Different for every kind, from 1 to 60; tests have the rest.
    const KIND: u64;
    /// What messages call it.
    const NOUN: &'static str;

    fn table() -> &'static Table<Self>;
}

/// Declares that a type is behind a handle: `object!(Rust type, opaque type, kind, "noun")`.
macro_rules! object {
    ($object:ty, $c:ty, $kind:literal, $noun:literal) => {
        impl $crate::handle::Object for $object {
            type C = $c;
            const KIND: u64 = $kind;
            const NOUN: &'static str = $noun;

            fn table() -> &'static $crate::handle::Table<Self> {
                static TABLE: $crate::handle::Table<$object> = $crate::handle::Table::new();
                &TABLE
            }
        }
    };
}
pub(crate) use object;

/// All objects of one kind.
pub(crate) struct Table<T> {
    shards: [Shard<T>; SHARDS],
}

/// Aligned so that two shards never share a cache line.
#[repr(align(128))]
struct Shard<T>(RwLock<Slots<T>>);

struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    generation: u32,
    object: Option<Arc<T>>,
}

/// A handle taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    kind: u64,
    shard: usize,
    slot: usize,
    generation: u32,
}

impl<T: Object> Table<T> {
    pub(crate) const fn new() -> Self {
        Self { shards: [const { Shard(RwLock::new(Slots { slots: Vec::new(), free: Vec::new() })) }; SHARDS] }
    }

    fn insert(&self, object: Arc<T>) -> *mut T::C {
        let shard = next_shard();
        let mut slots = self.shards[shard].0.write().unwrap_or_else(PoisonError::into_inner);
        let slot = match slots.free.pop() {
            Some(slot) => slot as usize,
            None => {
                assert!(slots.slots.len() < MAX_SLOTS, "there are too many {}s", T::NOUN);
                slots.slots.push(Slot { generation: 1, object: None });
                slots.slots.len() - 1
            }
        };
        slots.slots[slot].object = Some(object);
        Parts { kind: T::KIND, shard, slot, generation: slots.slots[slot].generation }.pack()
    }

    fn get(&self, parts: Parts) -> Option<Arc<T>> {
        let slots = self.shards[parts.shard].0.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.slots.get(parts.slot)?;
        if slot.generation == parts.generation { slot.object.clone() } else { None }
    }

    fn take(&self, parts: Parts) -> Option<Arc<T>> {
        let mut slots = self.shards[parts.shard].0.write().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.slots.get_mut(parts.slot)?;
        if slot.generation != parts.generation {
            return None;
        }
        let object = slot.object.take()?;
        slot.generation += 1;
        if slot.generation <= MAX_GENERATION {
            slots.free.push(parts.slot as u32);
        }
        Some(object)
    }
}

/// Puts an object behind a new handle.
pub(crate) fn issue<T: Object>(object: T) -> *mut T::C {
    T::table().insert(Arc::new(object))
}

/// The object behind a handle.
///
/// # Errors
/// `Handle` that says what is wrong with it.
pub(crate) fn get<T: Object>(handle: *const T::C) -> Result<Arc<T>> {
    let parts = parts::<T>(handle)?;
    T::table().get(parts).ok_or_else(destroyed::<T>)
}

/// The object behind a handle if there is one; none for NULL.
///
/// # Errors
/// `Handle`.
pub(crate) fn get_nullable<T: Object>(handle: *const T::C) -> Result<Option<Arc<T>>> {
    if handle.is_null() { Ok(None) } else { get(handle).map(Some) }
}

/// Ends a handle; returns what was behind it.
///
/// # Errors
/// `Handle`.
pub(crate) fn take<T: Object>(handle: *const T::C) -> Result<Arc<T>> {
    let parts = parts::<T>(handle)?;
    T::table().take(parts).ok_or_else(destroyed::<T>)
}

fn parts<T: Object>(handle: *const T::C) -> Result<Parts> {
    let wrong = |what: &str| Error::new(Code::Handle, format!("the handle of the {} is {what}", T::NOUN));
    if handle.is_null() {
        return Err(wrong("NULL"));
    }
    match Parts::unpack(handle) {
        Some(parts) if parts.kind == T::KIND => Ok(parts),
        Some(_) => Err(wrong("that of another kind of object")),
        None => Err(wrong("not one that this library has issued")),
    }
}

fn destroyed<T: Object>() -> Error {
    let noun = T::NOUN;
    Error::new(Code::Handle, format!("the {noun} was destroyed, or its handle was never issued"))
}

/// A handle that belongs to another object, and ends with it.
pub(crate) struct Owned<T: Object> {
    /// Kept as a number: a pointer would not be `Send`.
    bits: u64,
    kind: PhantomData<fn() -> T>,
}

impl<T: Object> Owned<T> {
    pub(crate) fn new(object: T) -> Self {
        Self { bits: issue(object) as u64, kind: PhantomData }
    }

    pub(crate) fn handle(&self) -> *const T::C {
        self.bits as *const T::C
    }
}

impl<T: Object> Drop for Owned<T> {
    fn drop(&mut self) {
        drop(take::<T>(self.handle()));
    }
}

impl Parts {
    fn pack<C>(self) -> *mut C {
        let bits = u64::from(self.generation) << GENERATION_SHIFT
            | (self.slot as u64) << SLOT_SHIFT
            | (self.shard as u64) << SHARD_SHIFT
            | self.kind << KIND_SHIFT
            | 1;
        bits as *mut C
    }

    fn unpack<C>(handle: *const C) -> Option<Self> {
        let bits = handle as u64;
        let parts = Self {
            kind: bits >> KIND_SHIFT & MAX_KIND,
            shard: (bits >> SHARD_SHIFT) as usize & (SHARDS - 1),
            slot: (bits >> SLOT_SHIFT) as usize & (MAX_SLOTS - 1),
            generation: (bits >> GENERATION_SHIFT) as u32,
        };
        (bits & 1 == 1 && parts.kind != 0 && parts.generation != 0).then_some(parts)
    }
}

/// Neighbouring objects of one thread go to different shards, and threads begin at different ones.
fn next_shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NEXT: Cell<usize> = Cell::new(THREADS.fetch_add(5, Relaxed));
    }
    NEXT.try_with(|next| next.replace(next.get().wrapping_add(1))).unwrap_or_default() % SHARDS
}

const SHARDS: usize = 16;
const MAX_KIND: u64 = (1 << 6) - 1;
const MAX_SLOTS: usize = 1 << 22;
const MAX_GENERATION: u32 = (1 << 31) - 1;
const KIND_SHIFT: u32 = 1;
const SHARD_SHIFT: u32 = 7;
const SLOT_SHIFT: u32 = 11;
const GENERATION_SHIFT: u32 = 33;

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(u32);
    struct Other;
    object!(Thing, Thing, 62, "thing");
    object!(Other, Other, 61, "other");

    #[test]
    fn a_handle_gives_its_object_until_it_is_taken() {
        let handle = issue(Thing(7));
        assert_eq!(get::<Thing>(handle).unwrap().0, 7);
        assert_eq!(take::<Thing>(handle).unwrap().0, 7);
        for error in [get::<Thing>(handle).err(), take::<Thing>(handle).err()] {
            assert_eq!(error.unwrap().code(), Code::Handle);
        }
    }

    #[test]
    fn a_slot_is_used_again_under_another_handle() {
        let table = Table::<Thing>::new();
        let mut seen = std::collections::HashSet::new();
        for i in 0..if cfg!(miri) { 1_000 } else { 100_000 } {
            let handle = table.insert(Arc::new(Thing(i)));
            assert!(seen.insert(handle as u64), "a handle was issued twice");
            table.take(Parts::unpack(handle).unwrap()).unwrap();
        }
        let slots: usize = table.shards.iter().map(|shard| shard.0.read().unwrap().slots.len()).sum();
        assert!(slots <= SHARDS, "{slots} slots for one object at a time");
    }

    #[test]
    fn a_slot_without_generations_is_retired() {
        let table = Table::<Thing>::new();
        let first = Parts::unpack(table.insert(Arc::new(Thing(0)))).unwrap();
        table.shards[first.shard].0.write().unwrap().slots[first.slot].generation = MAX_GENERATION;
        let last = Parts { generation: MAX_GENERATION, ..first };
        assert_eq!(Parts::unpack(last.pack::<Thing>()), Some(last));
        assert!(table.take(last).is_some());
        assert!(table.shards[first.shard].0.read().unwrap().free.is_empty());
        assert!(table.get(last).is_none());
    }

    #[test]
    fn wrong_values_are_refused() {
        let thing = issue(Thing(1));
        let on_heap = Box::new(5_u64);
        for (value, message) in [
            (0, "NULL"),
            (1, "not one"),
            (2, "not one"),
            (u64::MAX, "another kind"),
            (&raw const *on_heap as u64, "not one"),
            (issue(Other) as u64, "another kind"),
            (thing as u64 ^ (1 << GENERATION_SHIFT) ^ (1 << 40), "never issued"),
            (thing as u64 | (MAX_SLOTS as u64 - 1) << SLOT_SHIFT, "never issued"),
        ] {
            let error = get::<Thing>(value as *const Thing).err().unwrap();
            assert_eq!(error.code(), Code::Handle);
            assert!(error.message().contains(message), "{value:#x}: {error}");
        }
        assert!(get::<Thing>(thing).is_ok());
    }

    #[test]
    fn every_kind_has_its_own_number() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let mut kinds = std::collections::BTreeMap::new();
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|path| path.is_file()) {
            let source = std::fs::read_to_string(&file).unwrap();
            for line in source.lines().filter(|line| line.starts_with("object!(")) {
                let kind: u64 = line.split(", ").nth(2).unwrap().parse().unwrap();
                assert!((1..=60).contains(&kind), "{line}");
                assert_eq!(kinds.insert(kind, line.to_owned()), None, "{line}");
            }
        }
        assert!(kinds.len() >= 13, "{kinds:?}");
    }

    #[test]
    fn threads_share_a_table() {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                std::thread::spawn(move || {
                    for i in 0..if cfg!(miri) { 50 } else { 2_000 } {
                        let handle = issue(Thing(thread * 10_000 + i));
                        assert_eq!(get::<Thing>(handle).unwrap().0, thread * 10_000 + i);
                        assert!(take::<Thing>(handle).is_ok());
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

//! A layer below SQLite that notes what it does to the files of some directories: an SQLite VFS over the system's own.
//!
//! Everything is done, except for syncs: no file of this test has to outlive the machine.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use rusqlite::ffi::{
    SQLITE_OK, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

use crate::disk::{Event, FileId, Trace};

/// From now on, what SQLite does to files in this directory is noted there.
pub(crate) fn watch(directory: &Path, trace: &Arc<Trace>) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
    watched().insert(directory.to_owned(), trace.clone());
}

/// What happens to files that are opened from now on is not noted any more.
pub(crate) fn forget(directory: &Path) {
    watched().remove(directory);
}

fn watched() -> std::sync::MutexGuard<'static, BTreeMap<PathBuf, Arc<Trace>>> {
    static WATCHED: Mutex<BTreeMap<PathBuf, Arc<Trace>>> = Mutex::new(BTreeMap::new());
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's VFS. It is there for the whole life of the process, and is only read.
struct System(*mut sqlite3_vfs);

// SAFETY: SQLite calls a VFS from any thread, and so may we.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

static SYSTEM: OnceLock<System> = OnceLock::new();

/// What is kept of an open file, at the end of SQLite's own memory for it.
struct Opened {
    noted: Option<(Arc<Trace>, FileId)>,
    system: &'static sqlite3_io_methods,
}

fn install() {
    // SAFETY: SQLite gives its default VFS, which is there for good; ours is a copy that is never freed. The copied
    // functions take the system's files, which ours begin with.
    unsafe {
        let system = sqlite3_vfs_find(std::ptr::null());
        assert!(!system.is_null());
        let mut ours = *system;
        ours.pNext = std::ptr::null_mut();
        ours.zName = c"noting".as_ptr();
        ours.szOsFile = c_int::try_from(tail_offset(&*system) + size_of::<*mut Opened>()).unwrap();
        ours.xOpen = Some(open);
        ours.xDelete = Some(delete);
        assert!(SYSTEM.set(System(system)).is_ok());
        assert_eq!(sqlite3_vfs_register(Box::leak(Box::new(ours)), 1), SQLITE_OK);
    }
}

fn tail_offset(system: &sqlite3_vfs) -> usize {
    usize::try_from(system.szOsFile).unwrap().next_multiple_of(align_of::<*mut Opened>())
}

fn system() -> *mut sqlite3_vfs {
    SYSTEM.get().expect("installed").0
}

/// Who watches the directory of this file, and the file's name in it.
fn watcher(name: *const c_char) -> Option<(Arc<Trace>, String)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite's names end with a zero.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let trace = watched().get(path.parent()?)?.clone();
    Some((trace, path.file_name()?.to_str()?.to_owned()))
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives as much memory as we have asked for: the system's file, and our pointer behind it.
    unsafe {
        let code = (*system()).xOpen.unwrap()(system(), name, file, flags, out);
        if code == SQLITE_OK {
            let noted = watcher(name).map(|(trace, name)| {
                let file = trace.opened(&name);
                (trace, file)
            });
            let opened = Opened { noted, system: &*(*file).pMethods };
            (*file).pMethods = noting(opened.system);
            tail(file).write(Box::into_raw(Box::new(opened)));
        }
        code
    }
}

/// The system's functions, with ours for what changes a file. There are a few kinds, and each is made once.
fn noting(system: &'static sqlite3_io_methods) -> &'static sqlite3_io_methods {
    static MADE: Mutex<Vec<(usize, &'static sqlite3_io_methods)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let kind = std::ptr::from_ref(system) as usize;
    if let Some((_, ours)) = made.iter().find(|(of, _)| *of == kind) {
        return ours;
    }
    let ours = sqlite3_io_methods {
        xClose: Some(close),
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        ..*system
    };
    let ours: &'static _ = Box::leak(Box::new(ours));
    made.push((kind, ours));
    ours
}

/// Where our pointer is.
fn tail(file: *mut sqlite3_file) -> *mut *mut Opened {
    // SAFETY: as in `open`; the place is aligned as the memory is.
    unsafe { file.cast::<u8>().add(tail_offset(&*system())).cast() }
}

/// # Safety
/// The file was opened by `open`, and is not closed.
unsafe fn opened<'a>(file: *mut sqlite3_file) -> &'a Opened {
    // SAFETY: by the contract.
    unsafe { &**tail(file) }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, bytes: *const c_void, amount: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls this for files that `open` has made, with as many bytes as it says.
    unsafe {
        let opened = opened(file);
        let data = std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(amount).unwrap());
        let write = || opened.system.xWrite.unwrap()(file, bytes, amount, at);
        match &opened.noted {
            Some((trace, file)) => trace.done(write, || Event::Write(*file, at as u64, data.to_owned())),
            None => write(),
        }
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: as above.
    unsafe {
        let opened = opened(file);
        let truncate = || opened.system.xTruncate.unwrap()(file, size);
        match &opened.noted {
            Some((trace, file)) => trace.done(truncate, || Event::Truncate(*file, size as u64)),
            None => truncate(),
        }
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    // SAFETY: as above.
    match unsafe { &opened(file).noted } {
        Some((trace, file)) => trace.done(|| SQLITE_OK, || Event::Sync(*file)),
        None => SQLITE_OK,
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: as above; the pointer is ours, and is not used again.
    unsafe {
        let opened = Box::from_raw(*tail(file));
        (*file).pMethods = opened.system;
        opened.system.xClose.unwrap()(file)
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: SQLite's call, passed on.
    let delete = || unsafe { (*system()).xDelete.unwrap()(system(), name, sync_directory) };
    match watcher(name) {
        Some((trace, name)) => trace.delete(&name, sync_directory != 0, delete),
        None => delete(),
    }
}

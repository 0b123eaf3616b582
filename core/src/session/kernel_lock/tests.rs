//! Real processes, real kills. An owner is this test binary, started again as [`the_owner`].

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Signal, kill_process};

use super::*;
use crate::driver::testing::in_forked_child;

/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a test looks at what must not happen. Too short only makes the test blind, never wrong.
const GLANCE: Duration = Duration::from_millis(200);

/// How often a watch looks whether the session has ended before its process.
const PERIOD: Duration = Duration::from_millis(20);

const OWNER: &str = "COORD_TEST_OWNER";

/// A directory of its own on the file system of the build.
pub(in crate::session) struct Dir(pub(in crate::session) PathBuf);

impl Dir {
    pub(in crate::session) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kernel-lock-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::current_exe().expect("own path").with_file_name(name);
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn id(n: u128) -> SessionId {
    SessionId::from_random(n)
}

fn nonces() -> Vec<Nonce> {
    vec![Nonce(41), Nonce(0), Nonce(i64::MAX)]
}

fn info_of(lock: &OwnedLock) -> SessionInfo {
    let HostIdentity { host, boot, pid, start } = HostIdentity::read();
    SessionInfo { host, boot, pid, start, lk: Some(lock.identity()), ..SessionInfo::default() }
}

/// Another process with a session. Killed when dropped.
struct Owner {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
    info: SessionInfo,
}

impl Owner {
    fn start(directory: &Path, session: SessionId) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["session::kernel_lock::tests::the_owner", "--exact", "--nocapture", "--include-ignored"])
            .env(OWNER, format!("{session} {}", directory.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("own binary starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut owner = Self { child, input, output, info: SessionInfo::default() };
        let text = owner.answer();
        owner.info = serde_json::from_str(&text).expect("a session's info");
        owner
    }

    /// The next line that is meant for us.
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("readable"), 0, "the owner ended");
            // The test harness writes "test … " in front of the first one.
            if let Some((_, answer)) = line.split_once("@owner ") {
                return answer.trim().to_owned();
            }
        }
    }

    fn ask(&mut self, what: &str) -> String {
        writeln!(self.input, "{what}").expect("the owner lives");
        self.answer()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills it as a crash would, and waits until it is gone.
    fn crash(&mut self) {
        kill_process(self.pid(), Signal::KILL).expect("it lives");
        self.child.wait().expect("it is our child");
    }

    /// The same session seen by somebody who cannot see its process.
    fn unseen(&self) -> SessionInfo {
        SessionInfo { start: self.info.start + 1, ..self.info.clone() }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what [`Owner`] starts.
#[test]
#[ignore = "the other process of the tests here"]
fn the_owner() {
    let Ok(arguments) = std::env::var(OWNER) else { return };
    let (session, directory) = arguments.split_once(' ').expect("two arguments");
    let lock = OwnedLock::create(Path::new(directory), session.parse().expect("an id")).expect("a lock");
    lock.write_ring(&nonces()).expect("writable");
    let mut out = io::stdout();
    let mut say = |text: &str| writeln!(out, "@owner {text}").and_then(|()| out.flush()).expect("the parent listens");
    say(&serde_json::to_string(&info_of(&lock)).expect("json"));
    let mut lock = Some(lock);
    let mut heirs = Vec::new();
    for line in io::stdin().lines() {
        match line.expect("readable").as_str() {
            "remove" => lock.take().expect("removed once").remove(),
            // What a host does that closes descriptors which it does not own.
            "close" => drop(lock.as_mut().and_then(|lock| lock.file.take())),
            "bequeath" => {
                let file = lock.as_ref().and_then(|lock| lock.file.as_ref()).expect("locked");
                rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).expect("inheritable");
                let heir = Command::new("sleep").arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
                heirs.push(heir.expect("sleep starts"));
                say(&heirs[0].id().to_string());
                continue;
            }
            other => panic!("unknown order {other}"),
        }
        say("done");
    }
}

async fn soon(watch: &mut DeathWatch) -> Vec<Nonce> {
    let freed = tokio::time::timeout(PATIENCE, watch.freed(PERIOD)).await;
    freed.expect("the process has ended").expect("the death is proven")
}

async fn not_now(watch: &mut DeathWatch) -> bool {
    !matches!(tokio::time::timeout(GLANCE, watch.freed(PERIOD)).await, Ok(Some(_)))
}

/// A watch that can prove nothing says so.
async fn in_vain(watch: &mut DeathWatch) -> bool {
    tokio::time::timeout(PATIENCE, watch.freed(PERIOD)).await.expect("it ends").is_none() && !watch.can_prove()
}

/// What a process leaves behind that has crashed, and whose id nobody can see: the file, with nobody's lock on it.
pub(in crate::session) fn left_by_a_crash(directory: &Path, session: SessionId, nonce: Nonce) -> SessionInfo {
    let mut lock = OwnedLock::create(directory, session).expect("a lock");
    lock.write_ring(&[nonce]).expect("writable");
    drop(lock.file.take());
    SessionInfo { pid: u32::MAX, start: 0, ..info_of(&lock) }
}

#[tokio::test]
async fn a_killed_process_is_proven_dead() {
    let dir = Dir::new();
    let mut owner = Owner::start(&dir.0, id(1));
    let mut seen = DeathWatch::open(&dir.0, id(1), &owner.info, false).expect("it is the file");
    let mut unseen = DeathWatch::open(&dir.0, id(1), &owner.unseen(), false).expect("it is the file");
    assert!(seen.process.is_some() && unseen.process.is_none());
    assert!(not_now(&mut seen).await && not_now(&mut unseen).await);
    kill_process(owner.pid(), Signal::KILL).expect("it lives");
    assert_eq!(soon(&mut seen).await, nonces(), "before anybody has waited for the child");
    assert_eq!(soon(&mut unseen).await, nonces());
    let _ = owner.child.wait();
    remove_file_of_dead(&dir.0, id(1));
    remove_file_of_dead(&dir.0, id(1));
    assert!(DeathWatch::open(&dir.0, id(1), &owner.info, true).is_none(), "a missing file proves nothing");
}

#[tokio::test]
async fn a_stopped_process_is_not_dead() {
    let dir = Dir::new();
    let owner = Owner::start(&dir.0, id(1));
    kill_process(owner.pid(), Signal::STOP).expect("it lives");
    let mut seen = DeathWatch::open(&dir.0, id(1), &owner.info, true).expect("it is the file");
    let mut unseen = DeathWatch::open(&dir.0, id(1), &owner.unseen(), true).expect("it is the file");
    assert!(not_now(&mut seen).await && not_now(&mut unseen).await);
    kill_process(owner.pid(), Signal::KILL).expect("it is stopped");
    assert_eq!(soon(&mut seen).await, nonces());
    assert_eq!(soon(&mut unseen).await, nonces());
}

#[tokio::test]
async fn a_child_that_has_the_descriptor_keeps_the_session_alive() {
    let dir = Dir::new();
    let mut owner = Owner::start(&dir.0, id(1));
    let heir = owner.ask("bequeath").parse().ok().and_then(Pid::from_raw).expect("a pid");
    let mut watch = DeathWatch::open(&dir.0, id(1), &owner.info, false).expect("it is the file");
    assert!(not_now(&mut watch).await);
    owner.crash();
    assert!(not_now(&mut watch).await);
    kill_process(heir, Signal::KILL).expect("it lives");
    assert_eq!(soon(&mut watch).await, nonces());
}

#[tokio::test]
async fn who_never_saw_it_held_knows_nothing_unless_locks_are_trusted() {
    let dir = Dir::new();
    let mut owner = Owner::start(&dir.0, id(1));
    owner.crash();
    let mut late = DeathWatch::open(&dir.0, id(1), &owner.info, false).expect("it is the file");
    assert!(in_vain(&mut late).await);
    assert!(in_vain(&mut late).await, "asked again, still nothing");
    let mut trusting = DeathWatch::open(&dir.0, id(1), &owner.info, true).expect("it is the file");
    assert_eq!(soon(&mut trusting).await, nonces());
}

#[tokio::test]
async fn a_session_that_ends_before_its_process_is_not_proven_dead() {
    let dir = Dir::new();
    let mut owner = Owner::start(&dir.0, id(1));
    let path = path_of(&dir.0, id(1));
    let mut seen = DeathWatch::open(&dir.0, id(1), &owner.info, true).expect("it is the file");
    let mut unseen = DeathWatch::open(&dir.0, id(1), &owner.unseen(), true).expect("it is the file");
    // A second name, as backups make them, must not make it look alive again.
    std::fs::hard_link(&path, dir.0.join("backup")).expect("a link");
    let mut linked = DeathWatch::open(&dir.0, id(1), &owner.unseen(), true).expect("it is the file");
    assert!(not_now(&mut seen).await && not_now(&mut unseen).await && not_now(&mut linked).await);
    let watching = tokio::spawn(async move { (seen.freed(PERIOD).await, seen) });
    tokio::task::yield_now().await;
    assert_eq!(owner.ask("remove"), "done");
    assert!(!path.exists());
    assert!(in_vain(&mut unseen).await && in_vain(&mut linked).await);
    // And whoever watches already learns it before the process ends, which may be in a year.
    let watched = tokio::time::timeout(PATIENCE, watching).await.expect("it ends");
    let (proof, mut seen) = watched.expect("no panic");
    assert_eq!(proof, None);
    owner.crash();
    assert!(in_vain(&mut seen).await && in_vain(&mut unseen).await && in_vain(&mut linked).await);
}

#[tokio::test]
async fn a_living_process_whose_descriptor_was_closed_is_not_dead() {
    let dir = Dir::new();
    let mut owner = Owner::start(&dir.0, id(1));
    let mut watch = DeathWatch::open(&dir.0, id(1), &owner.info, true).expect("it is the file");
    assert_eq!(owner.ask("close"), "done");
    assert!(not_now(&mut watch).await);
    owner.crash();
    assert_eq!(soon(&mut watch).await, nonces());
}

#[tokio::test]
async fn a_file_that_lost_its_name_proves_nothing() {
    let dir = Dir::new();
    let mut owner = Owner::start(&dir.0, id(1));
    let mut watch = DeathWatch::open(&dir.0, id(1), &owner.info, true).expect("it is the file");
    std::fs::remove_file(path_of(&dir.0, id(1))).expect("it is there");
    std::fs::write(path_of(&dir.0, id(1)), encode(&nonces())).expect("made again");
    assert!(DeathWatch::open(&dir.0, id(1), &owner.info, true).is_none(), "another file of the same name");
    owner.crash();
    assert!(in_vain(&mut watch).await);
}

#[test]
fn only_the_file_of_the_record_is_watched() {
    let (dir, other) = (Dir::new(), Dir::new());
    let lock = OwnedLock::create(&dir.0, id(1)).expect("a lock");
    lock.write_ring(&nonces()).expect("writable");
    let (info, file) = (info_of(&lock), lock.identity());
    let opens = |info: &SessionInfo, trusted| DeathWatch::open(&dir.0, id(1), info, trusted).is_some();
    assert!(opens(&info, false));
    assert!(!opens(&SessionInfo { lk: None, ..info.clone() }, true), "no lock file in the record");
    for wrong in [
        LockFile { dev: file.dev + 1, ..file },
        LockFile { ino: file.ino + 1, ..file },
        LockFile { btime: file.btime + 1, ..file },
    ] {
        assert!(!opens(&SessionInfo { lk: Some(wrong), ..info.clone() }, true), "{wrong:?}");
    }
    let elsewhere = SessionInfo { boot: "another".to_owned(), ..info.clone() };
    assert!(!opens(&elsewhere, false));
    assert!(opens(&elsewhere, true), "the store is on this machine, so the file is");
    let renumbered = LockFile { dev: file.dev + 1, ..file };
    assert!(opens(&SessionInfo { lk: Some(renumbered), ..elsewhere }, true), "devices change with a reboot");

    assert!(DeathWatch::open(&other.0, id(1), &info, true).is_none(), "missing");
    let place = path_of(&other.0, id(1));
    std::fs::copy(path_of(&dir.0, id(1)), &place).expect("a copy");
    assert!(DeathWatch::open(&other.0, id(1), &info, true).is_none(), "a copy");
    std::fs::remove_file(&place).expect("it is there");
    symlink(path_of(&dir.0, id(1)), &place).expect("a link");
    assert!(DeathWatch::open(&other.0, id(1), &info, true).is_none(), "a symbolic link");
    std::fs::remove_file(&place).expect("it is there");
    rustix::fs::mknodat(rustix::fs::CWD, &place, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
    assert!(DeathWatch::open(&other.0, id(1), &info, true).is_none(), "a pipe, and opening it does not hang");

    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path_of(&dir.0, id(1)), Some(54_321), None).expect("root may");
        assert!(!opens(&info, true), "somebody else's file");
    }
}

#[test]
fn a_forked_child_leaves_the_parents_lock_alone() {
    let dir = Dir::new();
    let lock = OwnedLock::create(&dir.0, id(1)).expect("a lock");
    lock.write_ring(&nonces()).expect("writable");
    let mut inherited = Some(lock);
    let status = in_forked_child(|| {
        let lock = inherited.take().expect("a copy of the parent's");
        let refused = !lock.intact() && lock.write_ring(&[Nonce(7)]).is_err();
        lock.remove();
        i32::from(!refused)
    });
    assert_eq!(status, 0);
    let lock = inherited.expect("the parent's own");
    assert!(lock.intact());
    let reader = std::fs::File::open(path_of(&dir.0, id(1))).expect("still there");
    let attempt = rustix::fs::flock(&reader, FlockOperation::NonBlockingLockShared);
    assert_eq!(attempt, Err(Errno::WOULDBLOCK), "still locked");
    assert_eq!(read_ring(&reader.into()), nonces());
}

#[test]
fn a_descriptor_that_is_no_longer_ours_is_left_alone() {
    let dir = Dir::new();
    let mut lock = OwnedLock::create(&dir.0, id(1)).expect("a lock");
    assert!(lock.intact());
    std::fs::remove_file(path_of(&dir.0, id(1))).expect("it is there");
    assert!(lock.intact(), "a cleaner of old files does no harm");
    let foreign = dir.0.join("foreign");
    std::fs::write(&foreign, "theirs").expect("writable");
    // As if the number had been closed and given to another file.
    lock.file = Some(std::fs::File::options().read(true).write(true).open(&foreign).expect("open").into());
    assert!(!lock.intact());
    assert!(lock.write_ring(&nonces()).is_err());
    drop(lock);
    assert_eq!(std::fs::read(&foreign).expect("readable"), b"theirs");
}

#[test]
fn a_lock_file_is_made_once_and_holds_a_ring() {
    let dir = Dir::new();
    let lock = OwnedLock::create(&dir.0, id(1)).expect("a lock");
    assert_eq!(OwnedLock::create(&dir.0, id(1)).expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
    let ring: Vec<_> = (1..=RING as i64).map(Nonce).collect();
    lock.write_ring(&ring).expect("writable");
    assert_eq!(read_ring(lock.file.as_ref().expect("locked")), ring);
    lock.write_ring(&ring[..2]).expect("writable");
    assert_eq!(read_ring(lock.file.as_ref().expect("locked")), ring[..2]);
    assert!(lock.write_ring(&[Nonce(1); RING + 1]).is_err());
    lock.remove();
    assert!(!path_of(&dir.0, id(1)).exists());
    let missing = OwnedLock::create(&dir.0.join("missing"), id(1)).expect_err("no directory");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_file_system_of_another_kind_is_refused() {
    // Its files are made by the kernel; it stands for every file system that nobody has looked at.
    let file = std::fs::File::open("/proc/self/status").expect("/proc");
    assert!(!on_local_file_system(&file));
}

#[test]
fn a_cell_that_is_not_ours_holds_nothing() {
    assert_eq!(decode(&[0; 128]), []);
    assert_eq!(decode(&[0xFF; 128]), []);
    let mut cell = encode(&nonces());
    assert_eq!(decode(&cell), nonces());
    cell[8..NONCES_AT].copy_from_slice(&(RING as u64 + 1).to_le_bytes());
    assert_eq!(decode(&cell), []);
}

#[test]
fn this_process_has_an_identity() {
    let identity = HostIdentity::read();
    assert_eq!(identity, HostIdentity::read());
    assert_eq!(identity.pid, std::process::id());
    assert!(identity.start > 0 && !identity.boot.is_empty() && !identity.host.is_empty());
    assert_eq!(start_of(u32::MAX), None);
}

#[test]
fn the_run_directory_is_this_users_alone() {
    let dir = Dir::new();
    let (runtime, temporary) = (dir.0.join("runtime"), dir.0.join("tmp"));
    std::fs::create_dir(&temporary).expect("a directory");
    let own = temporary.join(format!("coord-{}", rustix::process::geteuid().as_raw()));
    assert_eq!(private_directory(Some(&runtime), &temporary), Ok(own.clone()), "the variable names nothing");
    assert_eq!(private_directory(None, &temporary), Ok(own.clone()), "again");
    std::fs::create_dir(&runtime).expect("a directory");
    assert_eq!(private_directory(Some(&runtime), &temporary), Ok(runtime.join("coord")));
    let mode = std::fs::metadata(&own).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    std::fs::set_permissions(&own, PermissionsExt::from_mode(0o755)).expect("ours");
    assert!(private_directory(None, &temporary).expect_err("open to others").contains("mode 700"));
    std::fs::remove_dir(&own).expect("empty");
    symlink(&runtime, &own).expect("a link");
    assert!(private_directory(None, &temporary).is_err(), "a symbolic link");
    std::fs::remove_file(&own).expect("a link");
    std::fs::write(&own, "").expect("writable");
    assert!(private_directory(None, &temporary).is_err(), "a file");
    let of_store = dir.0.join("db-run");
    assert_eq!(run_directory(Some(of_store.clone())), Ok(of_store.clone()));
    assert_eq!(run_directory(Some(of_store.clone())), Ok(of_store));
    assert!(run_directory(Some(own)).is_err(), "a file");
}

//! Places between two steps of this library, at which a campaign kills the process or holds up the thread that is there:
//! what is half done then has to come right all the same.
//!
//! Only with the feature `failpoints`, which nothing but a campaign enables. Without it [`at`] is empty, so that each
//! place vanishes from the code. A place is worth a point where something is done in one place and not yet in another:
//! in the store and not here, here and not in the store, or in one part of either.

/// One place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "the table below says where each is")]
pub enum Point {
    OpenSend,
    OpenAnswer,
    RenewSend,
    RenewAnswer,
    KillSend,
    KillAnswer,
    CloseSend,
    CloseAnswer,
    ProvideSend,
    ProvideAnswer,
    WithdrawSend,
    WithdrawAnswer,
    AcquireSend,
    AcquireAnswer,
    TrySend,
    TryAnswer,
    ReleaseSend,
    ReleaseAnswer,
    TransferSend,
    TransferAnswer,
    SweepSend,
    SweepAnswer,
    EvictSend,
    EvictAnswer,
    BreakSend,
    BreakAnswer,
    PublishSend,
    PublishAnswer,
    CollectSend,
    CollectAnswer,
    InsertSend,
    InsertAnswer,
    ReplaceSend,
    ReplaceAnswer,
    UpdateSend,
    UpdateAnswer,
    DeleteSend,
    DeleteAnswer,
    ManySend,
    ManyAnswer,
    LockFileMade,
    RingWritten,
    LockFileEmptied,
    LockFileRemoved,
    RenewalPublished,
    ValidityHalf,
    LossPublish,
    LossPublished,
    GrantPublish,
    GrantPublished,
    HoldMade,
    WaitGivenUp,
    EntryForgotten,
    PollRead,
    AuditRead,
    KeeperGranted,
    DeathProven,
    DeadBuried,
    DeadFileRemoved,
    DeadSwept,
    ProviderRegistered,
    SessionEnded,
    TermResigned,
    TermOver,
    KeyTaken,
    KeyFetched,
    KeyDone,
    KeyFinished,
    PartGranted,
    PartListed,
    PartRevoked,
    PartIdle,
    MailEnqueue,
    MailEnqueued,
    MailsClaimed,
    MailsRead,
    MailEnvelope,
    MailMark,
    MailMarked,
    MailData,
    MailDot,
    MailTaken,
    MailRecord,
    MailRecorded,
    MailsGivenBack,
    MailsTakenOver,
    SqliteFileMade,
    SqliteLaidOut,
    SqliteBegun,
    SqliteDone,
    SqliteCommitted,
    SqliteFollow,
    SqliteTold,
    SqliteReply,
    SqliteHint,
    SqliteDequeued,
    SqliteDeathMarked,
    SqliteChangeLogged,
    SqliteCeilingRaised,
    SqliteSocketRemoved,
    MongoCollectionMade,
    MongoSessionWritten,
    MongoClaimTaken,
    MongoClaimWritten,
    MongoDocumentWritten,
    MongoManyWritten,
    MongoTransactionNamed,
    MongoTombstoneWritten,
    MongoLockTouched,
    MongoCommit,
    MongoCommitted,
}

/// On which stores a point is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// On each.
    Every,
    /// On SQLite.
    Sqlite,
    /// On MongoDB.
    MongoDb,
}

/// Every point with its name, the stores on which it is passed, and where it is.
pub const ALL: [(Point, &str, On, &str); 111] = {
    use On::{Every, MongoDb, Sqlite};
    use Point as P;
    [
        (P::OpenSend, "open-send", Every, "before a session's opening is sent: its lock file is there"),
        (P::OpenAnswer, "open-answer", Every, "a session is open in the store, and its client does not know it yet"),
        (P::RenewSend, "renew-send", Every, "before a renewal is sent: its nonce is in the lock file"),
        (P::RenewAnswer, "renew-answer", Every, "a session is renewed in the store, and its deadline has not moved"),
        (P::KillSend, "kill-send", Every, "a session is found dead, and the store does not know"),
        (P::KillAnswer, "kill-answer", Every, "a session is dead in the store, and still in every claim"),
        (P::CloseSend, "close-send", Every, "everything is released, and the session lives in the store"),
        (P::CloseAnswer, "close-answer", Every, "a session has ended in the store, and its lock file is there"),
        (P::ProvideSend, "provide-send", Every, "before a provider is written"),
        (
            P::ProvideAnswer,
            "provide-answer",
            Every,
            "observers see a provider that its client does not know to be there",
        ),
        (P::WithdrawSend, "withdraw-send", Every, "before a provider is withdrawn"),
        (P::WithdrawAnswer, "withdraw-answer", Every, "a provider is withdrawn, and its client does not know it yet"),
        (P::AcquireSend, "acquire-send", Every, "an attempt is in the client's table, and not in the store"),
        (P::AcquireAnswer, "acquire-answer", Every, "an attempt holds or waits in the store, and nobody here knows"),
        (P::TrySend, "try-send", Every, "the same of an attempt that does not wait"),
        (P::TryAnswer, "try-answer", Every, "the same of an attempt that does not wait"),
        (P::ReleaseSend, "release-send", Every, "a hold is over here, and not in the store"),
        (P::ReleaseAnswer, "release-answer", Every, "the next one holds, and whoever has released does not know it"),
        (P::TransferSend, "transfer-send", Every, "a term is over here, and not handed over in the store"),
        (P::TransferAnswer, "transfer-answer", Every, "a term is handed over in the store, and nobody here knows"),
        (P::SweepSend, "sweep-send", Every, "before a dead session is taken out of a claim"),
        (P::SweepAnswer, "sweep-answer", Every, "a dead session is out of one claim, and in others"),
        (P::EvictSend, "evict-send", Every, "a hold is announced to be broken, and before it is by force"),
        (P::EvictAnswer, "evict-answer", Every, "a hold is broken by force, and nobody has been told"),
        (P::BreakSend, "break-send", Every, "before a holder is asked to go"),
        (P::BreakAnswer, "break-answer", Every, "a holder is asked to go, by somebody who does not know it"),
        (P::PublishSend, "publish-send", Every, "a term is won, and its value is not there"),
        (P::PublishAnswer, "publish-answer", Every, "a term's value is there, and its leader does not know it"),
        (P::CollectSend, "collect-send", Every, "before an old record is removed"),
        (P::CollectAnswer, "collect-answer", Every, "an old record is removed, with others to come"),
        (P::InsertSend, "insert-send", Every, "before a document is inserted"),
        (P::InsertAnswer, "insert-answer", Every, "a document is inserted, and its writer does not know it"),
        (P::ReplaceSend, "replace-send", Every, "before a document is replaced"),
        (P::ReplaceAnswer, "replace-answer", Every, "a document is replaced, and its writer does not know it"),
        (P::UpdateSend, "update-send", Every, "before a document is updated"),
        (P::UpdateAnswer, "update-answer", Every, "a document is updated, and its writer does not know it"),
        (P::DeleteSend, "delete-send", Every, "before a document is deleted"),
        (P::DeleteAnswer, "delete-answer", Every, "a document is deleted, and its writer does not know it"),
        (P::ManySend, "many-send", Every, "before many documents are written"),
        (P::ManyAnswer, "many-answer", Every, "many documents are written, and their writer does not know it"),
        (P::LockFileMade, "lock-file-made", Every, "a session's lock file is there, and its record is not"),
        (P::RingWritten, "ring-written", Every, "a nonce is in the lock file that was never sent"),
        (P::LockFileEmptied, "lock-file-emptied", Every, "a lock file proves nothing any more, and is still there"),
        (P::LockFileRemoved, "lock-file-removed", Every, "a lock file is gone, and its lock is held"),
        (P::RenewalPublished, "renewal-published", Every, "the deadline has moved"),
        (P::ValidityHalf, "validity-half", Every, "checks read a new epoch with the deadline of the one before"),
        (P::LossPublish, "loss-publish", Every, "a hold is known to be lost, and no check says so"),
        (P::LossPublished, "loss-published", Every, "checks say that a hold is lost, and nobody was woken"),
        (P::GrantPublish, "grant-publish", Every, "a grant is known, and whoever waits for it is not told"),
        (P::GrantPublished, "grant-published", Every, "whoever waits is told, and has not made a hold of the grant"),
        (P::HoldMade, "hold-made", Every, "a hold is in the table, and its user does not have it"),
        (P::WaitGivenUp, "wait-given-up", Every, "a wait has ended here, and stands in the queue"),
        (P::EntryForgotten, "entry-forgotten", Every, "an entry is out of the store and of the table"),
        (P::PollRead, "poll-read", Every, "what is waited for was read, and is not compared"),
        (P::AuditRead, "audit-read", Every, "what is held was read, and is not compared"),
        (P::KeeperGranted, "keeper-granted", Every, "a client is the keeper, and has looked at nobody"),
        (P::DeathProven, "death-proven", Every, "the kernel says that a process has died, and the store does not know"),
        (P::DeadBuried, "dead-buried", Every, "a session is dead in the store, and its lock file is there"),
        (
            P::DeadFileRemoved,
            "dead-file-removed",
            Every,
            "a dead session's lock file is gone, and its entries are there",
        ),
        (P::DeadSwept, "dead-swept", Every, "a dead session is out of every claim"),
        (P::ProviderRegistered, "provider-registered", Every, "a provider is registered, and its user is not told"),
        (P::SessionEnded, "session-ended", Every, "a client's session has ended, and its store is open"),
        (P::TermResigned, "term-resigned", Every, "a term is over for its leader, and not in the store"),
        (P::TermOver, "term-over", Every, "a term's functions have ended, and it is not given back"),
        (P::KeyTaken, "key-taken", Every, "a key is taken from the queue, and its document not fetched"),
        (P::KeyFetched, "key-fetched", Every, "before the user's function has a key"),
        (P::KeyDone, "key-done", Every, "the user's function has returned, and that does not count yet"),
        (P::KeyFinished, "key-finished", Every, "a key's run has ended, and its part is still in use"),
        (P::PartGranted, "part-granted", Every, "a part is this replica's, and none of its keys is in the queue"),
        (P::PartListed, "part-listed", Every, "a part's keys are in the queue"),
        (P::PartRevoked, "part-revoked", Every, "no key of a part is begun any more, and some may run"),
        (P::PartIdle, "part-idle", Every, "nothing runs under a part any more, and it is not released"),
        (P::MailEnqueue, "mail-enqueue", Every, "before a mail is written"),
        (P::MailEnqueued, "mail-enqueued", Every, "a mail is in the outbox, and its sender does not know it"),
        (P::MailsClaimed, "mails-claimed", Every, "mails carry a sender's name, who has not read them"),
        (P::MailsRead, "mails-read", Every, "a sender has its mails, and has begun nothing"),
        (P::MailEnvelope, "mail-envelope", Every, "the server takes the recipients, and the outbox does not know"),
        (P::MailMark, "mail-mark", Every, "before a mail is marked as being sent"),
        (P::MailMarked, "mail-marked", Every, "a mail is marked as being sent, and nothing of it was"),
        (P::MailData, "mail-data", Every, "the server waits for the content"),
        (P::MailDot, "mail-dot", Every, "the content has left, and the final dot has not"),
        (P::MailTaken, "mail-taken", Every, "the server has said yes, and nothing says so here"),
        (P::MailRecord, "mail-record", Every, "before it is written down that a mail was taken"),
        (P::MailRecorded, "mail-recorded", Every, "it is written down that a mail was taken"),
        (P::MailsGivenBack, "mails-given-back", Every, "a dead sender's claims are free, and those in doubt are not"),
        (P::MailsTakenOver, "mails-taken-over", Every, "a dead sender has no mail any more"),
        (P::SqliteFileMade, "sqlite-file-made", Sqlite, "a database is there, and empty"),
        (P::SqliteLaidOut, "sqlite-laid-out", Sqlite, "a new database's tables are made, and not committed"),
        (P::SqliteBegun, "sqlite-begun", Sqlite, "a transaction has begun"),
        (P::SqliteDone, "sqlite-done", Sqlite, "a transaction has done its work, and is not committed"),
        (P::SqliteCommitted, "sqlite-committed", Sqlite, "a transaction is committed, and the gate not left"),
        (P::SqliteFollow, "sqlite-follow", Sqlite, "a transaction is committed, and nobody was told"),
        (P::SqliteTold, "sqlite-told", Sqlite, "the next holder was told, and who looks on was not"),
        (P::SqliteReply, "sqlite-reply", Sqlite, "everybody was told but the one who asked"),
        (P::SqliteHint, "sqlite-hint", Sqlite, "a hint has come from another process, and nothing was read for it"),
        (P::SqliteDequeued, "sqlite-dequeued", Sqlite, "a waiter is out of the queue, and not the holder"),
        (
            P::SqliteDeathMarked,
            "sqlite-death-marked",
            Sqlite,
            "a dead session's places are marked, and it is not dated",
        ),
        (P::SqliteChangeLogged, "sqlite-change-logged", Sqlite, "the log has a change, and the table does not"),
        (P::SqliteCeilingRaised, "sqlite-ceiling-raised", Sqlite, "the ceiling of tokens is raised, not committed"),
        (P::SqliteSocketRemoved, "sqlite-socket-removed", Sqlite, "a dead session's socket is gone, its lock file not"),
        (P::MongoCollectionMade, "mongo-collection-made", MongoDb, "a collection is there, without its indexes"),
        (P::MongoSessionWritten, "mongo-session-written", MongoDb, "the driver has the answer of a step on a session"),
        (P::MongoClaimTaken, "mongo-claim-taken", MongoDb, "the driver has the answer of a step in its short form"),
        (P::MongoClaimWritten, "mongo-claim-written", MongoDb, "the driver has the answer of a step on a claim"),
        (P::MongoDocumentWritten, "mongo-document-written", MongoDb, "the driver has the answer of a plain write"),
        (P::MongoManyWritten, "mongo-many-written", MongoDb, "the driver has the answer of a write to many"),
        (P::MongoTransactionNamed, "mongo-transaction-named", MongoDb, "a record names a driver session, which is new"),
        (P::MongoTombstoneWritten, "mongo-tombstone-written", MongoDb, "a transaction has a fence, and no document"),
        (P::MongoLockTouched, "mongo-lock-touched", MongoDb, "a transaction has a lock's record, and nothing else"),
        (P::MongoCommit, "mongo-commit", MongoDb, "a transaction has done its work, and is not committed"),
        (P::MongoCommitted, "mongo-committed", MongoDb, "a transaction is committed, and its writer does not know it"),
    ]
};

/// The table is in the order of the points.
const _: () = {
    let mut at = 0;
    while at < ALL.len() {
        assert!(ALL[at].0 as usize == at);
        at += 1;
    }
};

impl Point {
    /// Its name.
    pub fn name(self) -> &'static str {
        ALL[self as usize].1
    }

    /// The point of this name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, known, ..)| *known == name).map(|(point, ..)| *point)
    }
}

/// The thread is at this place.
#[cfg(feature = "failpoints")]
pub fn at(point: Point) {
    fail::fail_point!(point.name());
}

/// The thread is at this place: nothing happens, without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn at(_: Point) {}

/// Has this called by each thread that is at this place, from now on, in the whole process. Returns whether that can be:
/// not without the feature `failpoints`.
#[cfg(feature = "failpoints")]
pub fn on(point: Point, hit: impl Fn() + Send + Sync + 'static) -> bool {
    fail::cfg_callback(point.name(), hit).is_ok()
}

/// Has this called at this place: never, without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub fn on(_: Point, _: impl Fn() + Send + Sync + 'static) -> bool {
    false
}

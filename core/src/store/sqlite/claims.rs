//! Steps on claims, as statements inside a transaction that the caller has begun.
//!
//! Invariant: the outcome equals that of [`claim::apply`] on the same record, with the sessions that are dead in the
//! database added to the step's dead ones. It is not a translation of it: only the rows that a step touches are read
//! and written, so an acquire of a free claim is one read and one write, and nothing depends on the length of the
//! queue but by its logarithm.
//!
//! [`claim::apply`]: crate::protocol::claim::apply

use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Fault;
use super::tokens::Marks;
use crate::failpoints::{self, Point};
use crate::protocol::claim::{ClaimKey, ClaimStep, ClaimView, Entry, HEAD, Step, When};
use crate::protocol::session::SessionId;
use crate::store::changes::ClaimState;
use crate::store::{Applied, Notice};
use crate::time::WallTime;

/// What a step on a claim did.
#[derive(Debug)]
pub(super) struct Stepped {
    pub(super) applied: Applied,
    /// What to tell whom, once the transaction is committed.
    pub(super) notice: Option<(SessionId, Notice)>,
    /// The ceiling of tokens should be raised soon.
    pub(super) ceiling_is_near: bool,
    /// The machine's date is too far ahead to be true, and did not count.
    pub(super) date_is_wrong: bool,
    /// Those who look on see something new; and which listeners the file had.
    pub(super) shown: bool,
    pub(super) listeners: i64,
}

impl Stepped {
    fn refused() -> Self {
        Self { applied: None, notice: None, ceiling_is_near: false, date_is_wrong: false, shown: false, listeners: 0 }
    }

    fn applied(view: ClaimView) -> Self {
        Self { applied: Some(view), ..Self::refused() }
    }
}

/// Applies one step to one claim.
pub(super) fn apply(db: &Connection, key: &ClaimKey, step: &ClaimStep, wall: WallTime) -> Result<Stepped, Fault> {
    let Loaded { marks, claim, listeners } = load(db, key)?;
    let stepped = match step {
        ClaimStep::Step(step) => advance(db, key, claim, step, marks, wall),
        ClaimStep::AnnounceBreak { token } => announce_break(db, key, claim, *token),
        ClaimStep::Publish { holder, token, value } => publish(db, key, claim, holder, *token, value),
        ClaimStep::Collect => collect(db, key, claim),
    }?;
    Ok(Stepped { listeners, ..stepped })
}

/// What those who look on may know of a claim; none if there is none.
pub(super) fn state(db: &Connection, key: &ClaimKey) -> rusqlite::Result<Option<ClaimState>> {
    let mut statement = db.prepare_cached("SELECT own, tok, at, val FROM lock WHERE name = ?1")?;
    let state = |row: &Row<'_>| {
        let holder = optional_entry(row, 0)?;
        let value: Option<String> = row.get(3)?;
        let value = value.filter(|_| holder.is_some());
        Ok(ClaimState { key: key.clone(), holder, token: row.get(1)?, granted_at: WallTime(row.get(2)?), value })
    };
    statement.query_row([key.as_str()], state).optional()
}

/// The texts between which all entries of a session lie: `/` is followed by `0`.
pub(super) fn entries_of(session: SessionId) -> (String, String) {
    (format!("{session}/"), format!("{session}0"))
}

/// An entry in a column.
pub(super) fn entry(row: &Row<'_>, column: usize) -> rusqlite::Result<Entry> {
    let value = row.get_ref(column)?;
    let parsed = value.as_str().and_then(|text| text.parse().map_err(|error| FromSqlError::Other(Box::new(error))));
    parsed.map_err(|error| conversion(column, value, error))
}

/// An entry in a column that may be empty.
pub(super) fn optional_entry(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Entry>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => entry(row, column).map(Some),
    }
}

fn conversion(column: usize, value: ValueRef<'_>, error: FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, value.data_type(), Box::new(error))
}

/// The claim's row, without what no step has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Claim {
    holder: Option<Entry>,
    token: i64,
    granted_at: WallTime,
    /// How many rows it has in the queue.
    waiting: u32,
    /// The number of the next row in the queue.
    next: i64,
}

struct Loaded {
    marks: Marks,
    claim: Option<Claim>,
    listeners: i64,
}

fn load(db: &Connection, key: &ClaimKey) -> Result<Loaded, Fault> {
    let mut statement = db.prepare_cached(LOAD)?;
    let loaded = statement.query_row([key.as_str()], |row| {
        let marks = Marks { hlc: row.get(0)?, ceil: row.get(1)? };
        let claim = match row.get(2)? {
            None => None,
            Some(token) => Some(Claim {
                token,
                holder: optional_entry(row, 3)?,
                granted_at: WallTime(row.get(4)?),
                waiting: row.get(5)?,
                next: row.get(6)?,
            }),
        };
        Ok(Loaded { marks, claim, listeners: row.get(7)? })
    });
    Ok(loaded?)
}

fn advance(
    db: &Connection,
    key: &ClaimKey,
    before: Option<Claim>,
    step: &Step,
    marks: Marks,
    wall: WallTime,
) -> Result<Stepped, Fault> {
    if !holds(db, key, before.as_ref(), &step.when)? {
        return Ok(Stepped::refused());
    }
    let mut claim = before.unwrap_or_default();
    if let Some(holder) = claim.holder
        && is_gone(db, step, &holder)?
    {
        claim.holder = None;
    }
    if claim.waiting > 0 {
        let left = remove_waiters(db, key, step)?;
        claim.waiting = claim.waiting.checked_sub(left).ok_or_else(|| miscounted(key))?;
    }
    let mut granted = None;
    if let Some(add) = step.add
        && admits(db, key, &claim, step, &add)?
    {
        if claim.holder.is_none() && claim.waiting == 0 {
            // It would go into the queue and out again.
            granted = Some(add);
        } else {
            enqueue(db, key, &mut claim, &add)?;
        }
    }
    if claim.holder.is_none() && claim.waiting > 0 {
        granted = Some(dequeue(db, key, &mut claim, step.preferred())?);
        failpoints::at(Point::SqliteDequeued);
    }
    if let Some(entry) = granted {
        claim.holder = Some(entry);
        claim.token = claim.token.saturating_add(1).max(marks.floor(wall));
        claim.granted_at = wall;
        if marks.forbids(claim.token) {
            return Err(Fault::CeilingTooLow(claim.token));
        }
    }
    save(db, key, before, &claim, granted.is_some())?;
    let shown = before.map_or((None, 0), |before| (before.holder, before.token)) != (claim.holder, claim.token);
    // The entry that asked has its answer.
    let told = granted.filter(|entry| step.add != Some(*entry));
    let notice = told.map(|entry| (entry.session, Notice::Granted { key: key.clone(), entry, token: claim.token }));
    Ok(Stepped {
        notice,
        shown,
        ceiling_is_near: granted.is_some() && marks.is_near(claim.token),
        date_is_wrong: granted.is_some() && marks.distrusts(wall),
        ..Stepped::applied(view(db, key, &claim, step.add.as_ref())?)
    })
}

fn holds(db: &Connection, key: &ClaimKey, claim: Option<&Claim>, when: &When) -> Result<bool, Fault> {
    let Some(claim) = claim else { return Ok(*when == When::Always) };
    Ok(match when {
        When::Always => true,
        When::Involved(entry) => claim.holder == Some(*entry) || waits(db, key, claim, entry)?,
        When::Transfer { holder, to } => claim.holder == Some(*holder) && waits(db, key, claim, to)?,
        When::Holding { holder, token } => claim.holder == Some(*holder) && claim.token == *token,
    })
}

fn is_gone(db: &Connection, step: &Step, holder: &Entry) -> Result<bool, Fault> {
    Ok(step.remove.contains(holder) || step.dead.contains(&holder.session) || is_dead(db, holder.session)?)
}

fn is_dead(db: &Connection, session: SessionId) -> Result<bool, Fault> {
    Ok(db.prepare_cached(IS_DEAD)?.exists([session.to_string()])?)
}

fn waits(db: &Connection, key: &ClaimKey, claim: &Claim, entry: &Entry) -> Result<bool, Fault> {
    Ok(claim.waiting > 0 && db.prepare_cached(WAITS)?.exists(params![entry.to_string(), key.as_str()])?)
}

fn remove_waiters(db: &Connection, key: &ClaimKey, step: &Step) -> Result<u32, Fault> {
    let mut removed = db.prepare_cached(REMOVE_GONE)?.execute([key.as_str()])?;
    for entry in &step.remove {
        removed += db.prepare_cached(REMOVE_ONE)?.execute(params![entry.to_string(), key.as_str()])?;
    }
    for session in &step.dead {
        // Who is dead in the database has its rows marked already.
        if !is_dead(db, *session)? {
            let (from, to) = entries_of(*session);
            removed += db.prepare_cached(REMOVE_OF)?.execute(params![from, to, key.as_str()])?;
        }
    }
    Ok(u32::try_from(removed).unwrap_or(u32::MAX))
}

/// Whether `add` is to become a waiter (or, if nobody is before it, the holder).
fn admits(db: &Connection, key: &ClaimKey, claim: &Claim, step: &Step, add: &Entry) -> Result<bool, Fault> {
    // Without waiting also when somebody waits: the claim would go to the head of the queue, and `add` would be left
    // in it.
    let refused = if step.wait { claim.waiting >= step.max_queue } else { claim.holder.is_some() || claim.waiting > 0 };
    Ok(!refused && claim.holder != Some(*add) && !waits(db, key, claim, add)?)
}

fn enqueue(db: &Connection, key: &ClaimKey, claim: &mut Claim, add: &Entry) -> Result<(), Fault> {
    let gone = is_dead(db, add.session)?;
    db.prepare_cached(ENQUEUE)?.execute(params![
        key.as_str(),
        add.priority.value(),
        claim.next,
        add.to_string(),
        gone
    ])?;
    claim.next += 1;
    claim.waiting += 1;
    Ok(())
}

fn dequeue(db: &Connection, key: &ClaimKey, claim: &mut Claim, preferred: Option<Entry>) -> Result<Entry, Fault> {
    let chosen = match preferred {
        Some(to) if waits(db, key, claim, &to)? => Some(to),
        _ => db.prepare_cached(FIRST)?.query_row([key.as_str()], |row| entry(row, 0)).optional()?,
    };
    let chosen = chosen.ok_or_else(|| miscounted(key))?;
    if db.prepare_cached(REMOVE_ONE)?.execute(params![chosen.to_string(), key.as_str()])? != 1 {
        return Err(miscounted(key));
    }
    claim.waiting -= 1;
    Ok(chosen)
}

fn miscounted(key: &ClaimKey) -> Fault {
    Fault::corrupt(format!("the queue of '{key}' does not have as many waiters as its record says"))
}

fn save(db: &Connection, key: &ClaimKey, before: Option<Claim>, claim: &Claim, granted: bool) -> Result<(), Fault> {
    let statement = match before {
        None => INSERT,
        Some(before) if before == *claim => return Ok(()),
        Some(_) if granted => GRANT,
        Some(_) => UPDATE,
    };
    db.prepare_cached(statement)?.execute(params![
        key.as_str(),
        claim.holder.map(|holder| holder.to_string()),
        claim.token,
        claim.granted_at.0,
        claim.waiting,
        claim.next
    ])?;
    Ok(())
}

fn view(db: &Connection, key: &ClaimKey, claim: &Claim, added: Option<&Entry>) -> Result<ClaimView, Fault> {
    let mut head = Vec::new();
    let mut waiting = false;
    if claim.waiting > 0 {
        let mut statement = db.prepare_cached(FIRST_FEW)?;
        head = statement.query_map([key.as_str()], |row| entry(row, 0))?.collect::<Result<_, _>>()?;
        waiting = match added {
            Some(add) => head.contains(add) || waits(db, key, claim, add)?,
            None => false,
        };
    }
    Ok(ClaimView {
        holder: claim.holder,
        token: claim.token,
        granted_at: claim.granted_at,
        waiting,
        head,
        queue_len: claim.waiting,
    })
}

fn announce_break(db: &Connection, key: &ClaimKey, claim: Option<Claim>, token: i64) -> Result<Stepped, Fault> {
    let Some(claim) = claim.filter(|claim| claim.token == token) else { return Ok(Stepped::refused()) };
    let Some(entry) = claim.holder else { return Ok(Stepped::refused()) };
    db.prepare_cached("UPDATE lock SET brk = own WHERE name = ?1")?.execute([key.as_str()])?;
    let notice = Some((entry.session, Notice::Breaking { key: key.clone(), entry, token }));
    Ok(Stepped { notice, ..Stepped::applied(view(db, key, &claim, None)?) })
}

fn publish(
    db: &Connection,
    key: &ClaimKey,
    claim: Option<Claim>,
    holder: &Entry,
    token: i64,
    value: &str,
) -> Result<Stepped, Fault> {
    let Some(claim) = claim.filter(|claim| claim.holder == Some(*holder) && claim.token == token) else {
        return Ok(Stepped::refused());
    };
    db.prepare_cached("UPDATE lock SET val = ?2 WHERE name = ?1")?.execute([key.as_str(), value])?;
    Ok(Stepped { shown: true, ..Stepped::applied(view(db, key, &claim, None)?) })
}

fn collect(db: &Connection, key: &ClaimKey, claim: Option<Claim>) -> Result<Stepped, Fault> {
    let unused = |claim: &Claim| claim.holder.is_none() && claim.waiting == 0;
    let Some(claim) = claim.filter(unused) else { return Ok(Stepped::refused()) };
    // Its token is remembered in the same transaction, so that the name never begins below it again. With that the
    // floor has passed it, whatever the date is.
    db.prepare_cached("UPDATE meta SET hlc = max(hlc, ?1) WHERE id = 1")?.execute([claim.token])?;
    db.prepare_cached("DELETE FROM lock WHERE name = ?1")?.execute([key.as_str()])?;
    Ok(Stepped::applied(view(db, key, &claim, None)?))
}

const LOAD: &str = "SELECT meta.hlc, meta.ceil, lock.tok, lock.own, lock.at, lock.waiting, lock.seq, meta.listeners \
                    FROM meta LEFT JOIN lock ON lock.name = ?1 WHERE meta.id = 1";
const IS_DEAD: &str = "SELECT 1 FROM sess WHERE id = ?1 AND st = 'dead'";
const WAITS: &str = "SELECT 1 FROM q WHERE who = ?1 AND name = ?2";
const REMOVE_ONE: &str = "DELETE FROM q WHERE who = ?1 AND name = ?2";
// By the index on what a session waits for, or by that on marked rows: never by walking the claim's queue.
const REMOVE_OF: &str = "DELETE FROM q INDEXED BY q_who WHERE who >= ?1 AND who < ?2 AND name = ?3";
const REMOVE_GONE: &str = "DELETE FROM q INDEXED BY q_gone WHERE name = ?1 AND gone = 1";
const ENQUEUE: &str = "INSERT INTO q(name, prio, seq, who, gone) VALUES(?1, ?2, ?3, ?4, ?5)";
const FIRST: &str = "SELECT who FROM q WHERE name = ?1 ORDER BY prio DESC, seq LIMIT 1";
const FIRST_FEW: &str = "SELECT who FROM q WHERE name = ?1 ORDER BY prio DESC, seq LIMIT 5";
const INSERT: &str = "INSERT INTO lock(name, own, tok, at, waiting, seq) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
const UPDATE: &str = "UPDATE lock SET own = ?2, tok = ?3, at = ?4, waiting = ?5, seq = ?6 WHERE name = ?1";
const GRANT: &str = "UPDATE lock SET own = ?2, tok = ?3, at = ?4, waiting = ?5, seq = ?6, val = NULL, brk = NULL \
                     WHERE name = ?1";
const _: () = assert!(HEAD == 5, "FIRST_FEW reads as many rows as a view shows");

/// Every statement with a plan, for the test that none of them walks through a table.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[IS_DEAD, WAITS, REMOVE_ONE, REMOVE_OF, REMOVE_GONE, FIRST, FIRST_FEW, UPDATE, GRANT, LOAD];

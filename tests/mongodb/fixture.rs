//! The fixture itself: what the other tests stand on.

use coord_tests::servers::{Mongod, ReplicaSet};
use mongodb::bson::doc;

#[test]
fn a_set_survives_the_loss_of_its_primary_and_goes_with_its_value() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let folder = set.folder().to_owned();
    let first = set.primary();
    first.kill();
    let second = set.primary();
    assert_ne!(first.port(), second.port());
    first.restart();
    second.freeze();
    let third = set.primary();
    assert_ne!(second.port(), third.port());
    second.thaw();
    set.step_down();
    let ports: Vec<u16> = set.members().iter().map(Mongod::port).collect();

    drop(set);
    assert!(!folder.exists());
    for port in ports {
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "a server still listens on {port}");
    }
}

#[test]
fn servers_are_gone_after_a_panic() {
    let port = std::sync::Mutex::new(None);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let Some(server) = Mongod::standalone() else { return };
        *port.lock().unwrap() = Some(server.port());
        assert!(server.command(doc! { "ping": 1 }).is_ok());
        panic!("on purpose: a failing test");
    }));
    let Some(port) = port.into_inner().unwrap() else { return };
    assert!(result.is_err());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "a server still listens on {port}");
}

#[test]
fn a_member_that_has_lost_its_data_copies_them_from_the_others() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let write = doc! { "insert": "kept", "documents": [{ "_id": 1 }], "writeConcern": { "w": 3, "wtimeout": 30_000 } };
    set.command(write).unwrap();
    for member in [set.secondaries()[0], set.primary()] {
        set.sync_anew(member);
        let kept = member.command(doc! { "find": "kept" }).unwrap();
        assert_eq!(kept.get_document("cursor").unwrap().get_array("firstBatch").unwrap().len(), 1, "{kept}");
        let status = member.command(doc! { "serverStatus": 1 }).unwrap();
        let of_syncs = ["metrics", "repl", "initialSync"].iter().try_fold(&status, |at, name| at.get_document(name));
        assert_eq!(of_syncs.unwrap().get_i64("completed").unwrap(), 1, "it had nothing when it began");
    }
}

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

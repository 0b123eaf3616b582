//! A close that meets the opening of the next session.

use super::*;
use crate::store::memory::MemoryStore;

#[tokio::test]
async fn a_session_that_was_opened_beside_a_close_is_not_the_clients() {
    let env = Env::system(tokio::runtime::Handle::current());
    let store = Arc::new(MemoryStore::open("closed-beside-an-opening", env.clone()));
    let options = Options::parse("memory:").expect("valid");
    let client = Client::with_store(store, options, env).await.expect("memory");
    let core = client.core();
    let late = Session::open(core.setup().clone()).await.expect("memory");
    client.close(Duration::from_secs(30)).await.expect("nothing is held");
    assert!(!core.adopt(&late));
    assert_ne!(core.current_session().id(), late.id());
    assert!(core.session_tasks.lock().expect("not poisoned").is_empty());
}

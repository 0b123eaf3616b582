//! The suite that every store passes.

use std::sync::Arc;

use coord_core::store::mongodb::MongoStore;
use coord_core::store::{SharedStore, conformance};
use coord_tests::servers;
use futures::FutureExt;

use super::support::*;

#[test]
fn the_store_passes_the_suite() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async move {
        let prefix = prefix();
        conformance::run(move || {
            let (uri, prefix) = (uri.clone(), prefix.clone());
            async move {
                let store = MongoStore::open(&uri, &prefix, 20, TTL, env()).await.expect("the store opens");
                Arc::new(store) as SharedStore
            }
            .boxed()
        })
        .await;
    });
}

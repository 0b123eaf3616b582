//! placeholder
use crate::error::Result;
/// x
#[derive(Clone, Debug)]
pub struct Runtime(std::sync::Arc<tokio::runtime::Runtime>);
impl Runtime {
    /// x
    pub fn shared() -> Result<Self> {
        static R: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();
        Ok(R.get_or_init(|| {
            Self(std::sync::Arc::new(
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            ))
        })
        .clone())
    }
    /// x
    pub fn handle(&self) -> &tokio::runtime::Handle {
        self.0.handle()
    }
    /// x
    pub async fn drive<T: Send + 'static>(&self, f: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.0.spawn(f).await.unwrap()
    }
    /// x
    pub fn is_ours() -> bool {
        true
    }
}

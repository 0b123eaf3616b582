//! Gives the shared library the soname that its consumers record, and keeps it loaded once it is.

use std::env;

/// The major number of `COORD_ABI_VERSION`; a test compares the two.
const SONAME: &str = "libcoord.so.1";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Tools that set a soname of their own turn this feature on.
    if env::var_os("CARGO_FEATURE_CAPI").is_none() {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
    }
    // The runtime's threads and thread-local destructors outlive dlclose; unloading their code would crash them.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

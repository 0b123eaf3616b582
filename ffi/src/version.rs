//! Which library this is, and which interface it speaks.
#![allow(unsafe_code)]

use std::ffi::c_char;

use crate::bytes::fixed;

/// The interface that this header describes: major number << 16 | minor number. Pass it to `coord_config_new`.
///
/// The library accepts programs built for the same major number and for a minor number that is not above its own.
pub const COORD_ABI_VERSION: u32 = 0x0001_0000;

/// The release that this header belongs to: major << 16 | minor << 8 | patch.
pub const COORD_VERSION: u32 = 0x0000_0100;

/// The version of the library that is loaded: major << 16 | minor << 8 | patch.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_version() -> u32 {
    COORD_VERSION
}

/// The version of the library that is loaded, as text; valid for ever.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_version_string() -> *const c_char {
    fixed(c"0.1.0")
}

/// The interface that the library that is loaded speaks, to be compared with `COORD_ABI_VERSION`.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_abi_version() -> u32 {
    COORD_ABI_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_package() {
        let numbers: Vec<u32> = env!("CARGO_PKG_VERSION").split('.').map(|n| n.parse().unwrap()).collect();
        assert_eq!(COORD_VERSION, numbers[0] << 16 | numbers[1] << 8 | numbers[2]);
        // SAFETY: it is a static text.
        let text = unsafe { std::ffi::CStr::from_ptr(coord_version_string()) };
        assert_eq!(text.to_str().unwrap(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_soname_has_the_major_number() {
        let build = include_str!("../build.rs");
        assert!(build.contains(&format!("\"libcoord.so.{}\"", COORD_ABI_VERSION >> 16)));
    }
}

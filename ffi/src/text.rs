//! Texts that a caller owns: where what is asked for may change while it is read, or there may be much of it.
#![allow(unsafe_code)]

use std::ffi::c_char;

use crate::boundary::{quiet, value};
use crate::bytes::{Lent, empty};
use crate::handle::{self, object};

/// A text, as it was when it was asked for.
pub struct coord_text_t;

/// Names, in their order.
pub struct coord_name_list_t;

pub(crate) struct TextObject(Lent);

pub(crate) struct NameListObject(Vec<Lent>);

object!(TextObject, coord_text_t, 59, "text");
object!(NameListObject, coord_name_list_t, 58, "list of names");

impl TextObject {
    pub(crate) fn new(text: &str) -> Self {
        Self(Lent::new(text))
    }
}

impl NameListObject {
    pub(crate) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| Lent::new(name)).collect())
    }
}

/// The text, which ends with a zero; valid until the handle is destroyed, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_text_data(text: *const coord_text_t) -> *const c_char {
    value(empty(), || Ok(handle::get::<TextObject>(text)?.0.start()))
}

/// The length of the text in bytes, without the zero; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_text_length(text: *const coord_text_t) -> usize {
    value(0, || Ok(handle::get::<TextObject>(text)?.0.length()))
}

/// Destroys a text. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `text`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_text_destroy(text: *mut coord_text_t) {
    quiet(|| handle::take::<TextObject>(text).map(drop));
}

/// How many names there are in the list; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_name_list_count(list: *const coord_name_list_t) -> usize {
    value(0, || Ok(handle::get::<NameListObject>(list)?.0.len()))
}

/// The name at this place; empty beyond the end. Belongs to the list.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_name_list_at(list: *const coord_name_list_t, index: usize) -> *const c_char {
    value(empty(), || Ok(handle::get::<NameListObject>(list)?.0.get(index).map_or_else(empty, Lent::start)))
}

/// Destroys a list of names. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `list`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_name_list_destroy(list: *mut coord_name_list_t) {
    quiet(|| handle::take::<NameListObject>(list).map(drop));
}

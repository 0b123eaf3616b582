//! What calls take: keys, filters and updates in the forms in which users have them.

use bson::{Bson, Document};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Code, Error, Result};
use crate::protocol::document::{Filter, Key, Projection, Sort, Update};

/// Something that can be taken for a `T`, if it is valid.
pub trait Given<T> {
    /// The `T`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none.
    fn given(self) -> Result<T>;
}

impl<T> Given<T> for T {
    fn given(self) -> Result<T> {
        Ok(self)
    }
}

impl<T: Clone> Given<T> for &T {
    fn given(self) -> Result<T> {
        Ok(self.clone())
    }
}

/// A text, an integer, a document, or any other value of BSON that can be a key.
macro_rules! keys {
    ($($from:ty),*) => {$(
        impl Given<Key> for $from {
            fn given(self) -> Result<Key> {
                Key::new(self)
            }
        }
    )*};
}

keys!(&str, String, i32, i64, Document, Bson);

impl Given<Filter> for Document {
    fn given(self) -> Result<Filter> {
        Filter::parse(self)
    }
}

/// Everything.
impl Given<Filter> for () {
    fn given(self) -> Result<Filter> {
        Ok(Filter::default())
    }
}

impl Given<Update> for Document {
    fn given(self) -> Result<Update> {
        Update::parse(self)
    }
}

/// A pipeline, which only MongoDB can do.
impl Given<Update> for Vec<Document> {
    fn given(self) -> Result<Update> {
        Update::pipeline(self)
    }
}

impl Given<Sort> for Document {
    fn given(self) -> Result<Sort> {
        Sort::parse(self)
    }
}

impl Given<Projection> for Document {
    fn given(self) -> Result<Projection> {
        Projection::parse(self)
    }
}

/// The update that sets these fields, each as a whole.
pub(super) fn setting(mut fields: Document) -> Result<Update> {
    // The key is in the call.
    fields.remove("_id");
    if let Some(path) = fields.keys().find(|name| name.contains('.')) {
        return Err(Error::invalid(format!("'{path}' is a path, not a field; set it with an update")));
    }
    Update::parse(bson::doc! { "$set": fields })
}

pub(super) fn document_of<T: Serialize + ?Sized>(value: &T) -> Result<Document> {
    bson::serialize_to_document(&value)
        .map_err(|error| Error::with_source(Code::InvalidArgument, format!("the value is no document: {error}"), error))
}

pub(super) fn value_of<T: DeserializeOwned>(document: Document) -> Result<T> {
    bson::deserialize_from_document(document).map_err(|error| {
        Error::with_source(Code::CorruptState, format!("the document is not what was asked for: {error}"), error)
    })
}

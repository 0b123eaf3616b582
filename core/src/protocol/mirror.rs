//! A copy of what a watch shows.

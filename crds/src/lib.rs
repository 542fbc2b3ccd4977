//! The API as users write it.

//! What the parser promises, by example and by chance.

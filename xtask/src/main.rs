//! What the project does for itself: set up, demonstrate, test, measure.
fn main() {}

//! What every command prints, and how it is interrupted.
//!
//! * [`output`]: results, for people or for programs. [`table`], [`text`]: how these read for people.
//! * [`progress`]: a bar for long work. [`interrupt`]: Ctrl-C in it.

pub(crate) mod interrupt;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod text;

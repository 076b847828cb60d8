//! How far long work has come: a bar or a line on standard error where that is a terminal, and else nothing.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sterna_proto::admin;
use sterna_storage_node::progress;

/// A bar, or a line. It disappears when it is dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar for work on something of this name; none `for_programs`.
    pub(crate) fn new(what: impl Into<String>, for_programs: bool) -> Self {
        Self::shown_by(OF_UNKNOWN_LENGTH, what.into(), for_programs)
    }

    /// A line that tells of work which no single number measures, beginning with `text`; none `for_programs`.
    pub(crate) fn line(text: impl Into<String>, for_programs: bool) -> Self {
        Self::shown_by(OF_TEXT, text.into(), for_programs)
    }

    fn shown_by(template: &str, message: String, for_programs: bool) -> Self {
        if for_programs || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_message(message);
        bar.set_style(style(template));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// What a line says from now on.
    pub(crate) fn say(&self, text: impl Into<String>) {
        self.0.set_message(text.into());
    }

    /// Shows how far a node says that it has come.
    pub(crate) fn set(&self, progress: &admin::Progress) {
        let admin::Progress { done_bytes, total_bytes } = *progress;
        self.show(progress::Progress { done_bytes, total_bytes });
    }

    /// Shows how far work of this process has come.
    pub(crate) fn show(&self, progress: progress::Progress) {
        if progress.total_bytes > 0 && self.0.length() != Some(progress.total_bytes) {
            self.0.set_length(progress.total_bytes);
            self.0.set_style(style(OF_KNOWN_LENGTH));
        }
        self.0.set_position(progress.done_bytes);
    }

    /// Lets something else be printed in between.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are right")
}

const OF_KNOWN_LENGTH: &str =
    "{msg} [{wide_bar:.cyan/blue}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
const OF_UNKNOWN_LENGTH: &str = "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}";
/// As much of it as the terminal has place for.
const OF_TEXT: &str = "{spinner} {wide_msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_templates_are_right() {
        style(OF_KNOWN_LENGTH);
        style(OF_UNKNOWN_LENGTH);
        style(OF_TEXT);
    }
}

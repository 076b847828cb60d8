//! The imports that run: one for a volume's name at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sterna_types::VolumeName;

/// The names of the volumes that are being filled.
#[derive(Debug, Default)]
pub(super) struct Imports {
    running: Mutex<HashSet<VolumeName>>,
}

/// The right to fill the volume of a name, until it is dropped.
#[derive(Debug)]
pub(super) struct ImportTurn {
    imports: Arc<Imports>,
    name: VolumeName,
}

impl Imports {
    /// The right to fill the volume `name`; `None` while somebody else has it.
    pub(super) fn begin(self: &Arc<Self>, name: &VolumeName) -> Option<ImportTurn> {
        let is_free = self.lock().insert(name.clone());
        is_free.then(|| ImportTurn { imports: Arc::clone(self), name: name.clone() })
    }

    /// Whether somebody fills the volume `name`.
    pub(super) fn is_running(&self, name: &VolumeName) -> bool {
        self.lock().contains(name)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<VolumeName>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ImportTurn {
    fn drop(&mut self) {
        self.imports.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_filled_by_one_at_a_time() {
        let (imports, name) = (Arc::<Imports>::default(), "web".parse().expect("a name"));
        let turn = imports.begin(&name).expect("nobody has it");
        assert!(imports.begin(&name).is_none() && imports.is_running(&name));
        drop(turn);
        assert!(!imports.is_running(&name) && imports.begin(&name).is_some());
    }
}

//! Which epoch a connection belongs to: the one in which the node served the volume, by its own account, when the connection
//! came to be.

use std::collections::BTreeMap;

use crate::faults::history::{Does, NodeEvent, NodeRecord, Operation, Record};

/// The epochs of all connections of a history.
#[derive(Debug, Default)]
pub struct Epochs {
    /// By volume, node and connection.
    known: BTreeMap<(u8, u8, u32), u64>,
}

impl Epochs {
    /// Finds them out.
    pub fn of(records: &[Record]) -> Self {
        let mut served: BTreeMap<(u8, u8), Vec<(u64, u64)>> = BTreeMap::new();
        for record in records {
            if let Record::Node(NodeRecord { node, at_ns, event: NodeEvent::Serves { volume, epoch } }) = record {
                served.entry((*volume, *node)).or_default().push((*at_ns, *epoch));
            }
        }
        let mut epochs = Self::default();
        for record in records {
            let Record::Operation(operation) = record else { continue };
            let Operation { volume, node, connection, does: Does::Attach, answered_ns, .. } = operation else {
                continue;
            };
            let epoch = served.get(&(*volume, *node)).and_then(|served| {
                let before = served.iter().filter(|(at_ns, _)| at_ns <= answered_ns);
                before.max_by_key(|(at_ns, _)| *at_ns).map(|(_, epoch)| *epoch)
            });
            if operation.is_done()
                && let Some(epoch) = epoch
            {
                epochs.known.insert((*volume, *node, *connection), epoch);
            }
        }
        epochs
    }

    /// That of the connection on which something was asked; `None` where the node never served the volume before.
    pub fn get(&self, operation: &Operation) -> Option<u64> {
        self.known.get(&(operation.volume, operation.node, operation.connection)).copied()
    }
}

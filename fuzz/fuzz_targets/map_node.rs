//! Any bytes as a node of a map: refused, or the one way to write what they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_storage_node::map::Node;

fuzz_target!(|data: &[u8]| {
    let Ok(node) = Node::decode(data) else { return };
    assert_eq!(node.encode(), data);
    assert_eq!(Node::of(node.level(), &node.slots()).as_ref(), Some(&node));
    assert_eq!((0..=255).filter_map(|slot| node.child(slot)).collect::<Vec<_>>(), node.children());
});

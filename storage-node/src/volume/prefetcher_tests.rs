//! A guest that does again what it did elsewhere, on a volume of which nothing is here: it waits a few times, and then for nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use sterna_types::{BLOCK_SIZE, BlockDevice, ByteOffset, Root, SEGMENT_SIZE, VolumeId};
use tokio::runtime::Handle;

use super::absence::{Absence, Supplied, Supply, Urgency};
use super::absence_tests::Courier;
use super::prefetcher::{BringingStatus, Prefetcher};
use super::tests::{Machine, range};
use super::{Volume, VolumeDevice};
use crate::trace::{Run, Trace, Traces};

const SIZE: u64 = 20 * SEGMENT_SIZE;

/// Where the guest reads: all over the volume.
fn places() -> impl Iterator<Item = Range<u64>> {
    let segment = SEGMENT_SIZE / BLOCK_SIZE;
    (0..60).map(move |number| number * 7 % 20 * segment + number / 20 * 300).map(|block| block..block + 1)
}

fn trace() -> Traces {
    let mut traces = Traces::default();
    traces.add(Trace::of((0..).zip(places()).map(|(number, blocks)| Run { at_ms: number * 100, blocks })));
    assert!(!traces.is_empty());
    traces
}

/// A volume with something in each of these places, none of which is here.
fn moved(traces: &Traces) -> (Machine, Arc<Volume>, Arc<Courier>) {
    let there = Machine::new();
    let written = there.volume(1, SIZE, Root::EMPTY);
    for place in places() {
        let data = [&place.start.to_le_bytes()[..], &[7; 4088]].concat();
        written.write(ByteOffset(place.start * BLOCK_SIZE), &data).expect("a write");
        written.seal().expect("a seal");
    }
    let here = Machine::new();
    here.storage.put_traces(VolumeId(1), traces).expect("traces");
    let volume = here.volume(1, SIZE, written.sealed().root);
    let courier = Courier::from(&written);
    volume.set_supply(Some(courier.clone()));
    (here, volume, courier)
}

async fn read(device: &VolumeDevice, places: impl IntoIterator<Item = Range<u64>>) {
    for place in places {
        device.read(range(place.start * BLOCK_SIZE, BLOCK_SIZE)).await.expect("a read");
    }
}

async fn until(volume: &Volume, is_so: impl Fn(&BringingStatus) -> bool) {
    for _ in 0..2_000 {
        if is_so(&volume.status().bringing) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come about: {:?}", volume.status());
}

#[tokio::test]
async fn a_guest_in_a_known_trace_waits_only_until_it_is_recognised() {
    let (_here, volume, _courier) = moved(&trace());
    let device = VolumeDevice::new(Arc::clone(&volume));
    volume.begin_attach();
    let prefetcher = Prefetcher::start(Arc::clone(&volume), &Handle::current());
    read(&device, places().take(4)).await;
    until(&volume, |status| status.ahead > 0 && status.ordered == 0).await;
    let waited = volume.status().bringing.waited;
    assert!(waited >= 1, "what it begins with was missed");
    read(&device, places()).await;
    assert_eq!(volume.status().bringing.waited, waited, "all the rest was there before it was read");
    assert_eq!(volume.status().traces, 1);
    prefetcher.stop().await;
}

#[tokio::test]
async fn a_guest_in_no_trace_or_whose_clients_are_elsewhere_has_nothing_brought_ahead() {
    for (traces, is_attached) in [(Traces::default(), true), (trace(), false)] {
        let (_here, volume, _courier) = moved(&traces);
        let device = VolumeDevice::new(Arc::clone(&volume));
        if is_attached {
            volume.begin_attach();
        }
        let prefetcher = Prefetcher::start(Arc::clone(&volume), &Handle::current());
        read(&device, places()).await;
        let status = volume.status().bringing;
        assert!(status.waited >= 60 && status.following.is_none() && status.ordered == 0, "{status:?}");
        prefetcher.stop().await;
    }
}

/// Brings what somebody waits for, and nothing else.
#[derive(Debug)]
struct Reluctant(Arc<Courier>);

impl Supply for Reluctant {
    fn bring<'a>(&'a self, volume: &'a Arc<Volume>, absence: Absence, urgency: Urgency) -> Supplied<'a> {
        match urgency {
            Urgency::Waited => self.0.bring(volume, absence, urgency),
            Urgency::Ahead => Box::pin(async { Err(std::io::Error::other("the link is cut").into()) }),
        }
    }
}

#[tokio::test]
async fn what_does_not_come_is_shown_and_ordered_again() {
    let (_here, volume, courier) = moved(&trace());
    volume.set_supply(Some(Arc::new(Reluctant(courier.clone()))));
    let device = VolumeDevice::new(Arc::clone(&volume));
    volume.begin_attach();
    let prefetcher = Prefetcher::start(Arc::clone(&volume), &Handle::current());
    read(&device, places().take(4)).await;
    until(&volume, |status| status.failure.as_ref().is_some_and(|failure| failure.contains("the link is cut"))).await;
    volume.set_supply(Some(courier));
    until(&volume, |status| status.failure.is_none() && status.ordered == 0).await;
    prefetcher.stop().await;
}

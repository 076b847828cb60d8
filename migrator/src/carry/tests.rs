//! Sequences over connections that end, against a plain copy of them; windows against links.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::inbox::Gap;
use super::outbox::NotSent;
use super::window::{AHEAD, LEAST_BYTES, MOST_BYTES};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>),
    /// Of at most so many bytes.
    Send(usize),
    /// Of what is on the way one piece arrives.
    Arrive,
    /// What has arrived is acknowledged.
    Acknowledge,
    /// The connection ends: what is on the way is lost.
    Cut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => vec(any::<u8>(), 0..50).prop_map(Step::Push),
        4 => (1usize..40).prop_map(Step::Send),
        4 => Just(Step::Arrive),
        2 => Just(Step::Acknowledge),
        1 => Just(Step::Cut),
    ];
    vec(step, 0..200)
}

proptest! {
    #[test]
    fn what_arrives_is_what_was_sent_whatever_connections_end(steps in steps()) {
        let (mut outbox, mut inbox) = (Outbox::new(), Inbox::new());
        let (mut pushed, mut arrived) = (Vec::new(), Vec::new());
        let mut way = VecDeque::new();
        let mut arrive = |way: &mut VecDeque<(Offset, Bytes)>, inbox: &mut Inbox| {
            if let Some((at, piece)) = way.pop_front() {
                arrived.extend_from_slice(&inbox.take(at, piece).expect("the next one"));
            }
        };
        for step in steps {
            match step {
                Step::Push(bytes) => {
                    pushed.extend_from_slice(&bytes);
                    outbox.push(bytes.into());
                }
                Step::Send(limit) => way.extend(outbox.next(limit)),
                Step::Arrive => arrive(&mut way, &mut inbox),
                Step::Acknowledge => outbox.acknowledge(inbox.received()).expect("it was sent"),
                Step::Cut => {
                    way.clear();
                    outbox.resume(inbox.received()).expect("it was sent");
                }
            }
            prop_assert_eq!(outbox.end().0, pushed.len() as u64);
            prop_assert_eq!(outbox.kept_bytes(), outbox.end().since(outbox.acknowledged()).expect("not behind the end"));
        }
        while let Some(piece) = outbox.next(17) {
            way.push_back(piece);
        }
        while !way.is_empty() {
            arrive(&mut way, &mut inbox);
        }
        outbox.acknowledge(inbox.received()).expect("it was sent");
        prop_assert_eq!(outbox.kept_bytes(), 0);
        prop_assert_eq!(arrived, pushed);
    }

    #[test]
    fn a_window_fills_a_link_and_little_more(rate in 1_000_000u64..200_000_000, round_trip_ms in 1u64..300) {
        let (mut window, round_trip) = (Window::new(), Duration::from_millis(round_trip_ms));
        let (mut way, mut on_the_way) = (VecDeque::new(), 0);
        let (mut now, mut free_at) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..4_000 {
            // Whoever writes always has more, and the link carries one piece after the other.
            while on_the_way + PIECE <= window.limit_bytes() {
                free_at = free_at.max(now) + Duration::from_micros(PIECE * 1_000_000 / rate);
                way.push_back((window.sent(false, now), free_at + round_trip));
                on_the_way += PIECE;
            }
            let Some((sent, at)) = way.pop_front() else { unreachable!("the least window holds some pieces") };
            now = at;
            on_the_way -= PIECE;
            window.acknowledged(PIECE, sent, now);
        }

        let wanted = u128::from(rate) * (round_trip + AHEAD).as_micros() / 1_000_000;
        let wanted = u64::try_from(wanted).expect("of a few hundred megabytes a second").clamp(LEAST_BYTES, MOST_BYTES);
        let limit = window.limit_bytes();
        prop_assert!(limit >= wanted / 2 && limit <= wanted * 2, "{limit} for {wanted}");
    }
}

#[test]
fn who_makes_places_up_is_refused() {
    let mut outbox = Outbox::new();
    outbox.push(Bytes::from_static(b"0123456789"));
    assert_eq!(outbox.next(4), Some((Offset(0), Bytes::from_static(b"0123"))));
    let beyond = NotSent { claimed: Offset(5), from: Offset(0), to: Offset(4) };
    assert_eq!(outbox.acknowledge(Offset(5)), Err(beyond));
    assert_eq!(beyond.to_string(), "it has come to 5 of the stream, and was sent 0 to 4");
    outbox.acknowledge(Offset(3)).unwrap();
    assert_eq!(outbox.resume(Offset(2)), Err(NotSent { claimed: Offset(2), from: Offset(3), to: Offset(4) }));
    outbox.resume(Offset(3)).unwrap();
    assert_eq!(outbox.next(100), Some((Offset(3), Bytes::from_static(b"3456789"))));
    assert_eq!(outbox.next(100), None);
    let mut inbox = Inbox::new();
    assert_eq!(inbox.take(Offset(1), Bytes::new()), Err(Gap { given: Offset(1), expected: Offset(0) }));
}

const PIECE: u64 = 32 << 10;

#[test]
fn a_link_that_had_nothing_to_carry_is_not_taken_for_a_slow_one() {
    let mut window = Window::new();
    let (round_trip, second) = (Duration::from_millis(100), Duration::from_secs(1));
    let mut carried = |bytes, is_last, at: Duration| {
        let sent = window.sent(is_last, at - round_trip);
        window.acknowledged(bytes, sent, at);
        window.rate()
    };
    assert_eq!(carried(10_000_000, false, second), 100_000_000);
    assert_eq!(carried(1_000, true, 2 * second), 100_000_000, "there was no more to carry");
    assert_eq!(carried(1_000, true, 20 * second), 100_000_000, "nothing else is known");
    assert_eq!(carried(5_000_000, false, 21 * second), 50_000_000, "it was busy");
    assert_eq!(carried(20_000_000, true, 22 * second), 200_000_000, "so much at least");
}

mod carriers {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;

    /// Two QEMUs with a carrier beside each.
    struct Two {
        qemus: [DuplexStream; 2],
        carriers: [Carrier; 2],
    }

    fn two() -> Two {
        let ((source, here), (destination, there)) = (duplex(1_000), duplex(1_000));
        let carriers = [Carrier::start(here, Plain), Carrier::start(there, Plain)];
        Two { qemus: [source, destination], carriers }
    }

    /// One connection between them, which ends after this many frames from the first.
    async fn connected([one, other]: &[Carrier; 2], frames: usize) {
        let (to_other, mut from_one) = mpsc::channel(1);
        let (way, at_other) = mpsc::channel(1);
        let (to_one, at_one) = mpsc::channel(1);
        let carrying = async {
            for _ in 0..frames {
                let Some(frame) = from_one.recv().await else { return };
                if way.send(frame).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = carrying => {}
            _ = one.carry(to_other, at_one) => {}
            _ = other.carry(to_one, at_other) => {}
        }
    }

    fn bytes(seed: usize, count: usize) -> Vec<u8> {
        (0..count).map(|at| ((at * 31 + seed) % 251).to_le_bytes()[0]).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_one_qemu_writes_the_other_reads_whatever_connections_end() {
        let Two { qemus: [mut source, mut destination], carriers } = two();
        let (forward, back) = (bytes(1, 3_000_000), bytes(2, 5_000));
        let talking = async {
            let writing = async {
                source.write_all(&forward).await.unwrap();
                let mut heard = vec![0; back.len()];
                source.read_exact(&mut heard).await.unwrap();
                assert!(heard == back);
            };
            let reading = async {
                let mut heard = vec![0; forward.len()];
                destination.read_exact(&mut heard).await.unwrap();
                assert!(heard == forward);
                destination.write_all(&back).await.unwrap();
            };
            tokio::join!(writing, reading);
        };
        let mut connections = 0;
        let connecting = async {
            loop {
                connections += 1;
                connected(&carriers, 1 + connections % 40).await;
            }
        };
        tokio::select! {
            () = talking => {}
            () = connecting => {}
        }
        assert!(connections > 10, "{connections}");
        let mut progress = carriers[0].progress();
        assert_eq!(progress.borrow().written, Offset(3_000_000));
        drop(source);
        progress.wait_for(|carried| carried.is_written).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_connection_no_more_than_a_window_is_taken() {
        let Two { qemus: [mut source, _destination], carriers } = two();
        let mut written = 0_u64;
        // The socket holds a little, the carrier a window and what it reads at once.
        let most = LEAST_BYTES + (64 << 10) + 2_000;
        while let Ok(sent) = tokio::time::timeout(Duration::from_millis(200), source.write(&[0; 500])).await {
            written += sent.unwrap() as u64;
            assert!(written <= most, "{written} bytes");
        }
        assert!(written >= LEAST_BYTES);
        let progress = *carriers[0].progress().borrow();
        assert!(progress.written.0 <= written && progress.taken == Offset(0), "{progress:?}");
    }

    #[tokio::test]
    async fn what_a_migrator_says_itself_needs_no_connection() {
        let Two { qemus: [mut source, _destination], carriers } = two();
        carriers[0].write(Bytes::from_static(b"said")).await.unwrap();
        let mut heard = [0; 4];
        source.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"said");
        drop(source);
        while carriers[0].write(Bytes::from_static(b"to nobody")).await.is_ok() {}
    }

    #[tokio::test]
    async fn who_says_what_may_not_be_is_let_go() {
        let Two { qemus: _qemus, carriers } = two();
        for frame in [Frame::Piece(Offset(0), Bytes::from_static(b"x")), Frame::Taken(Offset(1))] {
            let (send, _sent) = mpsc::channel(4);
            let (say, receive) = mpsc::channel(4);
            say.send(frame).await.unwrap();
            assert!(matches!(carriers[0].carry(send, receive).await, CarryEnd::Unexpected(_)));
        }
        let (send, _sent) = mpsc::channel(4);
        let (say, receive) = mpsc::channel(4);
        say.send(Frame::Taken(Offset(0))).await.unwrap();
        say.send(Frame::Piece(Offset(9), Bytes::from_static(b"x"))).await.unwrap();
        assert!(matches!(carriers[0].carry(send, receive).await, CarryEnd::Unexpected(_)));
    }
}

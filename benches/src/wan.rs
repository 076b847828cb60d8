//! The emulated network beside what was asked of it: delays, rates, loss, and how much it carries where nothing is limited.
//!
//! Delays are medians over UDP packets one by one. Rates are what TCP delivers once it has reached its speed, with the headers
//! that it took (52 bytes for 1448). Loss is counted over so many packets that chance moves it by about 2 %.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size_force};
use sterna_tests::wan::{Change, Loss, Offload, Settings, Topology, Wan, Ways};

use crate::facts::Facts;
use crate::goal::Goal;
use crate::median::median;

/// How often, and for how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Measure {
    /// How often each is measured; the medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each rate is measured, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

/// Measures all of it. Needs root.
///
/// # Errors
/// A network cannot be made, or stops carrying.
pub(crate) fn measure(measure: Measure) -> Result<Facts> {
    let Measure { rounds, seconds } = measure;
    let what = format!("the emulated network, {rounds} rounds, rates over {seconds} s; {}", congestion_control());
    let mut facts = Facts::new(what);
    for _ in 0..rounds {
        for delay in DELAYS {
            delays(&mut facts, delay)?;
        }
        for (rate, delay, streams) in RATES {
            let settings = Settings { delay: delay.parse()?, rate: rate.parse()?, ..Settings::default() };
            let name = format!("rate of {rate} over {delay}, {streams}");
            let asked = settings.rate.bits_per_second().context("this rate is limited")?;
            let mbit = throughput(&name, settings, Offload::Auto, streams, seconds, &mut facts)?;
            off_by(&mut facts, &name, mbit * 1e6, real(asked));
        }
        for (offload, delay, streams, goal) in UNLIMITED {
            let settings = Settings { delay: delay.parse()?, ..Settings::default() };
            let packets = if offload == Offload::Off { ", packets of the MTU's size" } else { "" };
            let name = format!("no limit over {delay}, {streams}{packets}");
            throughput(&name, settings, offload, streams, seconds, &mut facts)?;
            if let Some(goal) = goal {
                facts.aim(&name, Goal::AtLeast(goal));
            }
        }
        for (loss, packets) in LOSSES {
            losses(&mut facts, loss, packets)?;
        }
    }
    Ok(facts)
}

/// One way and there and back, packet by packet.
fn delays(facts: &mut Facts, delay: &str) -> Result<()> {
    let settings = Settings { delay: delay.parse()?, ..Settings::default() };
    let wan = Wan::start(Topology::of(&SITES, settings)?)?;
    let (here, there) = (udp(&wan, SITES[0])?, udp(&wan, SITES[1])?);
    let target = there.local_addr()?;
    let began = Instant::now();
    let (one_way_ms, round_trip_ms) = thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<Vec<f64>> {
            let mut one_way_ms = Vec::new();
            for _ in 0..PROBES {
                let mut sent = [0; 16];
                let (length, from) = there.recv_from(&mut sent)?;
                one_way_ms.push(ms_since(began, &sent)?);
                there.send_to(&sent[..length], from)?;
            }
            Ok(one_way_ms)
        });
        let heard = scope.spawn(|| -> Result<Vec<f64>> {
            let mut round_trip_ms = Vec::new();
            for _ in 0..PROBES {
                let mut sent = [0; 16];
                here.recv_from(&mut sent)?;
                round_trip_ms.push(ms_since(began, &sent)?);
            }
            Ok(round_trip_ms)
        });
        for _ in 0..PROBES {
            let now_ns = u64::try_from(began.elapsed().as_nanos())?;
            here.send_to(&now_ns.to_ne_bytes(), target)?;
            thread::sleep(PROBE_INTERVAL);
        }
        let panicked = |_| anyhow!("a thread has panicked");
        anyhow::Ok((echo.join().map_err(panicked)??, heard.join().map_err(panicked)??))
    })?;
    let asked_ms = settings.delay.duration().as_secs_f64() * 1e3;
    for (name, measured, asked_ms) in [
        (format!("delay of {delay}, one way"), median(&one_way_ms), asked_ms),
        (format!("delay of {delay}, there and back"), median(&round_trip_ms), 2.0 * asked_ms),
    ] {
        facts.add(&name, "ms", measured);
        off_by(facts, &name, measured, asked_ms);
    }
    wan.stop()
}

fn ms_since(began: Instant, sent: &[u8; 16]) -> Result<f64> {
    let (sent_ns, _) = sent.split_first_chunk().context("a probe holds 8 bytes")?;
    Ok((began.elapsed() - Duration::from_nanos(u64::from_ne_bytes(*sent_ns))).as_secs_f64() * 1e3)
}

/// What TCP streams deliver together, in Mbit/s of IP packets.
fn throughput(
    name: &str,
    settings: Settings,
    offload: Offload,
    Streams(streams): Streams,
    seconds: u32,
    facts: &mut Facts,
) -> Result<f64> {
    let wan = Wan::start(Topology::of(&SITES, settings)?.with_offload(offload))?;
    let address = SocketAddr::from((wan.address(SITES[1])?, PORT));
    let listener = wan.inside(SITES[1], || TcpListener::bind(address))??;
    let mut pairs = Vec::new();
    for _ in 0..streams {
        let sender = wan.inside(SITES[0], || TcpStream::connect(address))??;
        // What is not sent at the end is not to be sent later.
        set_socket_linger(&sender, Some(Duration::ZERO))?;
        pairs.push((sender, listener.accept()?.0));
    }
    let received = AtomicU64::new(0);
    let bytes = thread::scope(|scope| {
        for (sender, receiver) in &pairs {
            scope.spawn(|| send_on(sender));
            scope.spawn(|| receive_on(receiver, &received));
        }
        // Until its speed is found, and what was lost at first is delivered.
        thread::sleep(WARM_UP + 40 * settings.delay.duration());
        let (began, before) = (Instant::now(), received.load(Ordering::Relaxed));
        thread::sleep(Duration::from_secs(seconds.into()));
        let bytes = real(received.load(Ordering::Relaxed) - before) / began.elapsed().as_secs_f64();
        for (sender, receiver) in &pairs {
            // Where the other end has closed it there is nothing to shut down.
            let _ = (sender.shutdown(Shutdown::Both), receiver.shutdown(Shutdown::Both));
        }
        bytes
    });
    let mbit = bytes * 8.0 / 1e6 * IP_PER_PAYLOAD;
    facts.add(name, "Mbit/s", mbit);
    let overruns: u64 = wan.report()?.sites.iter().map(|site| site.overruns).sum();
    if overruns > 0 {
        facts.add(&format!("{name}: packets that were not read in time"), "packets", real(overruns));
    }
    wan.stop()?;
    Ok(mbit)
}

/// Until it is shut down.
fn send_on(mut stream: &TcpStream) {
    let bytes = vec![0x5a; 256 << 10];
    while stream.write_all(&bytes).is_ok() {}
}

fn receive_on(mut stream: &TcpStream, received: &AtomicU64) {
    let mut bytes = vec![0; 256 << 10];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// The share of packets that do not arrive. So few are sent at once that none is lost for another reason.
fn losses(facts: &mut Facts, loss: &str, packets: u64) -> Result<()> {
    let wan = Wan::start(Topology::of(&SITES, Settings::default())?)?;
    wan.set(SITES[0], SITES[1], Ways::OneWay, &Change { loss: Some(loss.parse()?), ..Change::default() })?;
    let (here, there) = (udp(&wan, SITES[0])?, udp(&wan, SITES[1])?);
    set_socket_recv_buffer_size_force(&there, 64 << 20)?;
    there.set_nonblocking(true)?;
    let target = there.local_addr()?;
    let mut arrived = 0_u64;
    let mut sent = 0_u64;
    while sent < packets {
        for _ in 0..AT_ONCE {
            here.send_to(&[0; 64], target)?;
        }
        sent += AT_ONCE;
        loop {
            let report = wan.report()?;
            let direction = report.direction(SITES[0], SITES[1])?;
            if direction.carried_packets + direction.dropped.loss == sent {
                break;
            }
            let overruns: u64 = report.sites.iter().map(|site| site.overruns).sum();
            ensure!(overruns == 0, "{overruns} packets were not read in time: the machine is too slow");
            thread::sleep(Duration::from_millis(1));
        }
        while there.recv(&mut [0; 64]).is_ok() {
            arrived += 1;
        }
    }
    let name = format!("loss of {loss} of {packets} packets");
    let lost = real(sent - arrived) / real(sent);
    facts.add(&name, "%", lost * 100.0);
    off_by(facts, &name, lost, f64::from(loss.parse::<Loss>()?.ppm()) / 1e6);
    wan.stop()
}

fn udp(wan: &Wan, site: &str) -> Result<UdpSocket> {
    let address = SocketAddr::from((wan.address(site)?, PORT));
    let socket = wan.inside(site, || UdpSocket::bind(address))??;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(socket)
}

/// How far what was measured is from what was asked for.
fn off_by(facts: &mut Facts, name: &str, measured: f64, asked: f64) {
    let name = format!("{name}: off by");
    facts.add(&name, "%", (measured / asked - 1.0).abs() * 100.0);
    facts.aim(&name, Goal::AtMost(OFF_BY_PERCENT));
}

fn congestion_control() -> String {
    let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    format!("TCP with {}", name.trim_end())
}

#[expect(clippy::cast_precision_loss, reason = "figures, below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

/// How many TCP connections send at the same time.
#[derive(Clone, Copy, Debug)]
struct Streams(usize);

impl std::fmt::Display for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} TCP stream{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

const SITES: [&str; 2] = ["ams", "nyc"];
const PORT: u16 = 7000;
const DELAYS: [&str; 4] = ["5ms", "50ms", "150ms", "250ms"];
const RATES: [(&str, &str, Streams); 8] = [
    ("10M", "10ms", Streams(1)),
    ("10M", "10ms", Streams(4)),
    ("100M", "10ms", Streams(1)),
    ("100M", "10ms", Streams(4)),
    ("100M", "100ms", Streams(1)),
    ("1G", "10ms", Streams(1)),
    ("1G", "10ms", Streams(4)),
    ("1G", "50ms", Streams(1)),
];
/// With what is to be reached, in Mbit/s.
const UNLIMITED: [(Offload, &str, Streams, Option<f64>); 4] = [
    (Offload::On, "5ms", Streams(4), Some(1000.0)),
    (Offload::On, "20ms", Streams(1), Some(1000.0)),
    (Offload::On, "100ms", Streams(4), None),
    (Offload::Off, "5ms", Streams(4), None),
];
/// Each with so many packets that the standard deviation of what is lost is about 2 % of it.
const LOSSES: [(&str, u64); 2] = [("0.1%", 2_000_000), ("1%", 400_000)];

const PROBES: u32 = 100;
const PROBE_INTERVAL: Duration = Duration::from_millis(5);
const WARM_UP: Duration = Duration::from_secs(2);
/// Half of what a device holds until it is read.
const AT_ONCE: u64 = 2000;
const OFF_BY_PERCENT: f64 = 5.0;
/// IP packets of 1500 bytes hold 1448 bytes of what TCP carries, with its time stamps.
const IP_PER_PAYLOAD: f64 = 1500.0 / 1448.0;

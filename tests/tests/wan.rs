//! The emulated network, in real namespaces: what it carries arrives whole, what is cut does not, what is asked for is counted,
//! and nothing of it is left behind. How exact its delays and rates are is measured (`scripts/bench wan`), and decides no test.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use sterna_tests::random::Random;
use sterna_tests::tool::{Ended, Running, Tool, signal, until};
use sterna_tests::wan::{Change, Offload, Prefix, Report, Settings, Topology, Wan, Ways};

/// What is waited for takes milliseconds; a machine that needs longer than this has come to a stop.
const LIMIT: Duration = Duration::from_secs(60);
const WAN: &str = env!("CARGO_BIN_EXE_wan");
const PORT: u16 = 7000;

fn wan() -> Result<Wan> {
    Wan::start(Topology::of(&["ams", "nyc", "syd"], Settings::default())?)
}

fn settings(change: &[(&str, &str)]) -> Result<Change> {
    let mut settings = Change::default();
    for &(name, value) in change {
        match name {
            "delay" => settings.delay = Some(value.parse()?),
            "rate" => settings.rate = Some(value.parse()?),
            "loss" => settings.loss = Some(value.parse()?),
            _ => settings.queue = Some(value.parse()?),
        }
    }
    Ok(settings)
}

/// A socket of a site.
fn udp(wan: &Wan, site: &str) -> Result<UdpSocket> {
    let address = wan.address(site)?;
    let socket = wan.inside(site, || UdpSocket::bind((address, PORT)))??;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

fn say(wan: &Wan, socket: &UdpSocket, to: &str, what: &str) -> Result<()> {
    socket.send_to(what.as_bytes(), (wan.address(to)?, PORT))?;
    Ok(())
}

fn hear(socket: &UdpSocket) -> Result<String> {
    let mut bytes = [0; 2048];
    let (length, _) = socket.recv_from(&mut bytes).context("nothing arrived")?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// Waits until the report says so.
fn wait_for(wan: &Wan, is_so: impl Fn(&Report) -> Result<bool>) -> Result<()> {
    ensure!(until(LIMIT, || is_so(&wan.report()?))?, "it did not come to be so:\n{}", wan.report()?);
    Ok(())
}

/// Sends so many bytes from one site to another over TCP, and sees that they arrive as they were sent.
fn transfer(wan: &Wan, from: &str, to: &str, bytes: u64) -> Result<()> {
    let address = (wan.address(to)?, PORT);
    let listener = wan.inside(to, || TcpListener::bind(address))??;
    let mut sent = wan.inside(from, || TcpStream::connect_timeout(&address.into(), LIMIT))??;
    let (mut received, _) = listener.accept()?;
    received.set_read_timeout(Some(LIMIT))?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<()> {
            let mut random = Random::new(bytes);
            for _ in 0..bytes / CHUNK as u64 {
                sent.write_all(&chunk(&mut random))?;
            }
            Ok(())
        });
        let (mut random, mut got) = (Random::new(bytes), vec![0; CHUNK]);
        for index in 0..bytes / CHUNK as u64 {
            received.read_exact(&mut got)?;
            ensure!(got == chunk(&mut random), "chunk {index} is not what was sent");
        }
        ensure!(received.read(&mut got)? == 0, "more arrived than was sent");
        sender.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))?
    })
}

const CHUNK: usize = 64 << 10;

fn chunk(random: &mut Random) -> Vec<u8> {
    (0..CHUNK / 8).flat_map(|_| random.bits().to_ne_bytes()).collect()
}

fn namespaces(prefix: &str) -> Result<Vec<String>> {
    let listed = Tool::new("ip").args(["netns", "list"]).succeed()?.stdout;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
}

fn prefix_of(wan: &Wan) -> Result<String> {
    Ok(wan.namespace("ams")?.trim_end_matches("ams").to_owned())
}

#[test]
fn each_site_reaches_each_other_one_and_nothing_else_of_the_machine() -> Result<()> {
    let wan = wan()?;
    let sites = ["ams", "nyc", "syd"];
    let sockets = sites.iter().map(|site| udp(&wan, site)).collect::<Result<Vec<_>>>()?;
    for (from, socket) in sites.iter().zip(&sockets) {
        for (to, other) in sites.iter().zip(&sockets).filter(|(to, _)| *to != from) {
            say(&wan, socket, to, from)?;
            assert_eq!(hear(other)?, *from);
        }
    }
    let outside = sockets[0].send_to(b"x", "192.0.2.1:9");
    assert_eq!(outside.unwrap_err().kind(), std::io::ErrorKind::NetworkUnreachable);
    wan.stop()
}

#[test]
fn what_is_carried_in_packets_of_64_kib_arrives_whole() -> Result<()> {
    let wan = wan()?;
    let delay = settings(&[("delay", "2ms")])?;
    wan.set("ams", "nyc", Ways::Both, &delay)?;
    transfer(&wan, "ams", "nyc", 64 << 20)?;
    let report = wan.report()?;
    let there = report.direction("ams", "nyc")?;
    assert!(there.carried_bytes > 64 << 20, "{report}");
    assert!(there.carried_bytes > 2 * 1500 * there.carried_packets, "they were small:\n{report}");
    assert_eq!(report.direction("ams", "syd")?.carried_packets, 0, "{report}");
    wan.stop()
}

#[test]
fn without_offload_no_packet_is_larger_than_the_mtu() -> Result<()> {
    let topology = Topology::of(&["ams", "nyc"], Settings::default())?.with_offload(Offload::Off);
    let wan = Wan::start(topology)?;
    transfer(&wan, "ams", "nyc", 8 << 20)?;
    let report = wan.report()?;
    let there = report.direction("ams", "nyc")?;
    assert!(there.carried_bytes > 8 << 20 && there.carried_bytes <= 1500 * there.carried_packets, "{report}");
    wan.stop()
}

#[test]
fn where_packets_are_lost_none_is_larger_than_the_mtu_and_tcp_delivers_all_the_same() -> Result<()> {
    let wan = wan()?;
    wan.set("ams", "nyc", Ways::OneWay, &settings(&[("loss", "1%")])?)?;
    transfer(&wan, "ams", "nyc", 8 << 20)?;
    let report = wan.report()?;
    let there = report.direction("ams", "nyc")?;
    assert!(there.dropped.loss > 0 && there.carried_bytes <= 1500 * there.carried_packets, "{report}");
    assert_eq!(report.direction("nyc", "ams")?.dropped.loss, 0, "it is of one direction:\n{report}");
    wan.set("ams", "nyc", Ways::OneWay, &settings(&[("loss", "0%")])?)?;
    transfer(&wan, "ams", "nyc", 16 << 20)?;
    let later = wan.report()?;
    let there_later = later.direction("ams", "nyc")?;
    let bytes = there_later.carried_bytes - there.carried_bytes;
    assert!(bytes > 1500 * (there_later.carried_packets - there.carried_packets), "{later}");
    wan.stop()
}

#[test]
fn a_cut_lets_nothing_pass_until_it_is_healed() -> Result<()> {
    let wan = wan()?;
    let (ams, nyc, syd) = (udp(&wan, "ams")?, udp(&wan, "nyc")?, udp(&wan, "syd")?);
    say(&wan, &ams, "nyc", "before")?;
    assert_eq!(hear(&nyc)?, "before");
    wan.cut("ams", "nyc", Ways::Both)?;
    for _ in 0..100 {
        say(&wan, &ams, "nyc", "lost")?;
        say(&wan, &nyc, "ams", "lost")?;
    }
    say(&wan, &ams, "syd", "aside")?;
    assert_eq!(hear(&syd)?, "aside", "only one pair is cut");
    wait_for(&wan, |report| {
        let dropped = |from, to| anyhow::Ok(report.direction(from, to)?.dropped.cut);
        Ok(dropped("ams", "nyc")? == 100 && dropped("nyc", "ams")? == 100)
    })?;
    wan.heal("ams", "nyc", Ways::Both)?;
    say(&wan, &ams, "nyc", "after")?;
    say(&wan, &nyc, "ams", "after")?;
    assert_eq!((hear(&nyc)?, hear(&ams)?), ("after".to_owned(), "after".to_owned()));
    assert_eq!(wan.report()?.direction("ams", "nyc")?.carried_packets, 2);
    wan.stop()
}

#[test]
fn a_direction_can_be_cut_by_itself() -> Result<()> {
    let wan = wan()?;
    let (ams, nyc) = (udp(&wan, "ams")?, udp(&wan, "nyc")?);
    wan.cut("ams", "nyc", Ways::OneWay)?;
    say(&wan, &ams, "nyc", "lost")?;
    say(&wan, &nyc, "ams", "there")?;
    assert_eq!(hear(&ams)?, "there");
    wait_for(&wan, |report| Ok(report.direction("ams", "nyc")?.dropped.cut == 1))?;
    wan.heal("ams", "nyc", Ways::OneWay)?;
    say(&wan, &ams, "nyc", "again")?;
    assert_eq!(hear(&nyc)?, "again");
    wan.stop()
}

#[test]
fn what_is_in_flight_when_it_is_cut_never_arrives() -> Result<()> {
    let wan = wan()?;
    let (ams, nyc) = (udp(&wan, "ams")?, udp(&wan, "nyc")?);
    wan.set("ams", "nyc", Ways::OneWay, &settings(&[("delay", "10s")])?)?;
    for _ in 0..10 {
        say(&wan, &ams, "nyc", "lost")?;
    }
    wait_for(&wan, |report| Ok(report.direction("ams", "nyc")?.in_flight_packets == 10))?;
    wan.cut("ams", "nyc", Ways::OneWay)?;
    let report = wan.report()?;
    let there = report.direction("ams", "nyc")?;
    assert_eq!((there.dropped.cut, there.in_flight_packets, there.in_flight_bytes), (10, 0, 0));
    wan.set("ams", "nyc", Ways::OneWay, &settings(&[("delay", "0ms")])?)?;
    wan.heal("ams", "nyc", Ways::OneWay)?;
    say(&wan, &ams, "nyc", "after")?;
    assert_eq!(hear(&nyc)?, "after");
    wan.stop()
}

#[test]
fn a_share_of_packets_is_lost_and_each_is_counted() -> Result<()> {
    let wan = wan()?;
    let (ams, _nyc) = (udp(&wan, "ams")?, udp(&wan, "nyc")?);
    wan.set("ams", "nyc", Ways::OneWay, &settings(&[("loss", "30%")])?)?;
    for _ in 0..2000 {
        say(&wan, &ams, "nyc", "perhaps")?;
    }
    wait_for(&wan, |report| {
        let there = report.direction("ams", "nyc")?;
        Ok(there.carried_packets + there.dropped.loss == 2000)
    })?;
    let lost = wan.report()?.direction("ams", "nyc")?.dropped.loss;
    assert!((480..=720).contains(&lost), "{lost} of 2000; the seed decides, and 600 were to be");
    wan.set("ams", "nyc", Ways::OneWay, &settings(&[("loss", "100%")])?)?;
    say(&wan, &ams, "nyc", "never")?;
    wait_for(&wan, |report| Ok(report.direction("ams", "nyc")?.dropped.loss == lost + 1))?;
    wan.stop()
}

#[test]
fn what_does_not_fit_into_the_queue_is_dropped_and_counted() -> Result<()> {
    let wan = wan()?;
    let (ams, _nyc) = (udp(&wan, "ams")?, udp(&wan, "nyc")?);
    // 100 packets of 1028 bytes take 100 s; ten fit.
    wan.set("ams", "nyc", Ways::OneWay, &settings(&[("rate", "8K"), ("queue", "10300B")])?)?;
    for _ in 0..100 {
        say(&wan, &ams, "nyc", &"x".repeat(1000))?;
    }
    wait_for(&wan, |report| {
        let there = report.direction("ams", "nyc")?;
        Ok(there.carried_packets + there.dropped.queue + there.in_flight_packets == 100)
    })?;
    let report = wan.report()?;
    let there = report.direction("ams", "nyc")?;
    assert!(there.dropped.queue > 0 && there.in_flight_bytes <= 10_300, "{report}");
    assert_eq!(there.queue_bytes, Some(10_300));
    wan.stop()
}

#[test]
fn settings_change_while_a_connection_is_open() -> Result<()> {
    let wan = wan()?;
    thread::scope(|scope| {
        let transfer = scope.spawn(|| transfer(&wan, "ams", "nyc", 32 << 20));
        for (delay, rate) in [("5ms", "1G"), ("20ms", "200M"), ("1ms", "unlimited")] {
            wan.set("ams", "nyc", Ways::Both, &settings(&[("delay", delay), ("rate", rate)])?)?;
            let report = wan.report()?;
            let there = report.direction("nyc", "ams")?;
            assert_eq!((there.delay.to_string(), there.rate.to_string()), (delay.to_owned(), rate.to_owned()));
        }
        transfer.join().map_err(|_| anyhow::anyhow!("the transfer has panicked"))?
    })?;
    wan.stop()
}

#[test]
fn several_wans_with_the_same_addresses_do_not_meet() -> Result<()> {
    let (one, other) = (wan()?, wan()?);
    let (ams, nyc) = (udp(&one, "ams")?, udp(&one, "nyc")?);
    let (other_ams, other_nyc) = (udp(&other, "ams")?, udp(&other, "nyc")?);
    say(&one, &ams, "nyc", "one")?;
    say(&other, &other_ams, "nyc", "other")?;
    assert_eq!((hear(&nyc)?, hear(&other_nyc)?), ("one".to_owned(), "other".to_owned()));
    assert_eq!(one.report()?.direction("ams", "nyc")?.carried_packets, 1);
    one.stop()?;
    other.stop()
}

#[test]
fn a_command_runs_at_a_site() -> Result<()> {
    let wan = wan()?;
    let output = wan.command("syd", "ip")?.args(["-4", "-brief", "address"]).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("127.0.0.1/8") && text.contains("10.77.3.1/24"), "{text}");
    wan.stop()
}

#[test]
fn nothing_is_left_however_a_wan_ends() -> Result<()> {
    let stopped = wan()?;
    let prefix = prefix_of(&stopped)?;
    assert_eq!(namespaces(&prefix)?.len(), 3);
    stopped.stop()?;
    assert_eq!(namespaces(&prefix)?, [""; 0]);

    let dropped = wan()?;
    let prefix = prefix_of(&dropped)?;
    drop(dropped);
    assert_eq!(namespaces(&prefix)?, [""; 0]);
    let devices = Tool::new("ip").args(["-brief", "link"]).succeed()?.stdout;
    assert!(!devices.contains("wan0"), "{devices}");
    Ok(())
}

#[test]
fn a_connection_that_is_closed_behind_a_cut_is_not_kept_when_the_wan_has_ended() -> Result<()> {
    let wan = wan()?;
    let address = (wan.address("nyc")?, PORT);
    let listener = wan.inside("nyc", || TcpListener::bind(address))??;
    let mut sent = wan.inside("ams", || TcpStream::connect_timeout(&address.into(), LIMIT))??;
    let received = listener.accept()?;
    // It is that of the thread's namespace, wherever it is read.
    let mut sockets = wan.inside("ams", || fs::File::open("/proc/thread-self/net/sockstat"))??;
    let mut in_use = || -> Result<String> {
        let mut text = String::new();
        sockets.seek(SeekFrom::Start(0))?;
        sockets.read_to_string(&mut text)?;
        let line = text.lines().find_map(|line| line.strip_prefix("TCP: inuse ")).context("no line for TCP")?;
        Ok(line.split(' ').next().unwrap_or_default().to_owned())
    };
    wan.cut("ams", "nyc", Ways::Both)?;
    sent.write_all(&[7; 10_000])?;
    assert_eq!(in_use()?, "1");
    drop((sent, received, listener));
    assert_eq!(in_use()?, "1", "it is to be sent still");
    wan.stop()?;
    ensure!(until(LIMIT, || Ok(in_use()? == "0"))?, "the connection is there still");
    Ok(())
}

#[test]
fn a_device_that_is_deleted_ends_the_wan_which_says_so() -> Result<()> {
    let wan = wan()?;
    let prefix = prefix_of(&wan)?;
    Tool::new("ip").args(["-n", wan.namespace("nyc")?, "link", "delete", "wan0"]).succeed()?;
    ensure!(until(LIMIT, || Ok(wan.failure().is_some()))?, "it has not failed");
    assert!(wan.failure().is_some_and(|failure| failure.contains("site 'nyc' is gone")), "{:?}", wan.failure());
    let error = format!("{:#}", wan.cut("ams", "syd", Ways::Both).unwrap_err());
    assert!(error.contains("site 'nyc' is gone"), "{error}");
    assert!(wan.stop().is_err());
    assert_eq!(namespaces(&prefix)?, [""; 0]);
    Ok(())
}

#[test]
fn a_site_that_is_not_there_is_refused_by_name() -> Result<()> {
    let wan = wan()?;
    for error in [
        wan.cut("ams", "ber", Ways::Both).unwrap_err(),
        wan.set("ber", "ams", Ways::Both, &Change::default()).unwrap_err(),
        wan.namespace("ber").unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "there is no site 'ber': the sites are ams, nyc, syd");
    }
    assert!(wan.heal("ams", "ams", Ways::Both).is_err());
    wan.stop()
}

/// The program, with a topology and a control socket in a directory of its own.
struct Program {
    directory: tempfile::TempDir,
    prefix: String,
}

impl Program {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let topology = "[defaults]\ndelay = \"1ms\"\n[[sites]]\nname = \"ams\"\n[[sites]]\nname = \"nyc\"\n";
        fs::write(directory.path().join("topology.toml"), topology)?;
        Ok(Self { directory, prefix: Prefix::unique().to_string() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn up(&self) -> Tool {
        let words = [Path::new("--prefix"), Path::new(&self.prefix), Path::new("--control"), &self.path("sock")];
        Tool::new(WAN).args([Path::new("up"), &self.path("topology.toml")]).args(words)
    }

    /// Starts it, and waits until it answers.
    fn start(&self) -> Result<Running> {
        let running = self.up().spawn()?;
        ensure!(until(LIMIT, || Ok(self.ctl(&["show"])?.status.success()))?, "it does not answer");
        Ok(running)
    }

    fn ctl(&self, words: &[&str]) -> Result<Ended> {
        Tool::new(WAN).args([Path::new("ctl"), &self.path("sock")]).args(words).run()
    }

    fn exec(&self, words: &[&str]) -> Result<Ended> {
        Tool::new(WAN).args(["exec", "--prefix", &self.prefix]).args(words).run()
    }

    fn report(&self) -> Result<Report> {
        Ok(serde_json::from_str(&self.ctl(&["show", "--json"])?.stdout)?)
    }
}

#[test]
fn the_program_does_what_it_is_told_and_leaves_nothing() -> Result<()> {
    let program = Program::new()?;
    let running = program.start()?;
    assert_eq!(program.ctl(&["cut", "ams", "nyc", "--one-way"])?.code()?, 0);
    let settings = ["set", "ams", "nyc", "--delay", "50ms", "--rate", "100M", "--loss", "0.1%", "--queue", "2MiB"];
    assert_eq!(program.ctl(&settings)?.code()?, 0);
    let report = program.report()?;
    let there = report.direction("ams", "nyc")?;
    let set =
        (there.is_cut, there.delay.to_string(), there.rate.to_string(), there.loss.to_string(), there.queue_bytes);
    assert_eq!(set, (true, "50ms".to_owned(), "100M".to_owned(), "0.1%".to_owned(), Some(2 << 20)));
    assert!(!report.direction("nyc", "ams")?.is_cut);
    assert_eq!(program.ctl(&["heal", "ams", "nyc"])?.code()?, 0);
    let shown = program.ctl(&["show"])?.stdout;
    assert!(shown.contains("10.77.2.1") && shown.contains("100M"), "{shown}");
    let address = program.exec(&["nyc", "--", "ip", "-4", "-brief", "address"])?;
    assert!(address.stdout.contains("10.77.2.1/24"), "{address}");
    assert_eq!(program.exec(&["nyc", "--", "sh", "-c", "exit 7"])?.code()?, 7, "the command's own exit code");
    let ended = running.terminate()?;
    assert_eq!(ended.code()?, 0, "{ended}");
    assert!(ended.stdout.contains("ams: namespace wan-test-") && ended.stdout.contains("the wan is up"), "{ended}");
    assert_eq!(namespaces(&program.prefix)?, [""; 0]);
    assert!(!program.path("sock").exists());
    Ok(())
}

#[test]
fn what_a_killed_program_has_left_is_named_and_can_be_removed() -> Result<()> {
    let program = Program::new()?;
    let running = program.start()?;
    let second = program.up().args(["--control", "/nonexistent/sock"]).run()?;
    assert_eq!(second.code()?, 2, "a socket is given once: {second}");
    let second = Tool::new(WAN).args([Path::new("up"), &program.path("topology.toml")]);
    let second = second.args(["--prefix", &program.prefix]).run()?;
    assert!(second.code()? == 1 && second.stderr.contains("is running"), "{second}");
    let clean = || Tool::new(WAN).args(["clean", "--prefix", &program.prefix]).run();
    let refused = clean()?;
    assert!(refused.code()? == 1 && refused.stderr.contains("is running"), "{refused}");

    signal(running.id(), Signal::KILL)?;
    running.wait()?;
    let third = program.up().run()?;
    let told = format!("remove them with `wan clean --prefix {}`", program.prefix);
    assert!(third.code()? == 1 && third.stderr.contains(&told), "{third}");
    let cleaned = clean()?;
    assert_eq!((cleaned.code()?, cleaned.stdout.lines().count()), (0, 2), "{cleaned}");
    assert_eq!(namespaces(&program.prefix)?, [""; 0]);
    let again = program.start()?.terminate()?;
    assert_eq!(again.code()?, 0, "a socket that nobody listens on gives way: {again}");
    Ok(())
}

#[test]
fn the_program_says_what_is_wrong_and_how_it_ended() -> Result<()> {
    let program = Program::new()?;
    let path = program.path("topology.toml");
    fs::write(&path, "[[sites]]\nname = \"ams\"\n[[sites]]\nname = \"nyc\"\ndelay = \"1ms\"\n")?;
    let ended = program.up().run()?;
    assert_eq!(ended.code()?, 1, "{ended}");
    assert!(ended.stderr.contains("topology.toml is not a topology") && ended.stderr.contains("line 5"), "{ended}");
    let ended = program.ctl(&["show"])?;
    assert!(ended.code()? == 1 && ended.stderr.contains("no wan listens on"), "{ended}");
    let ended = program.exec(&["ams", "--", "true"])?;
    assert!(ended.code()? == 1 && ended.stderr.contains("there are: none"), "{ended}");
    let ended = program.ctl(&["set", "ams", "nyc", "--rate", "fast"])?;
    assert!(ended.code()? == 2 && ended.stderr.contains("'fast' is not a rate"), "{ended}");
    Ok(())
}

#[test]
fn the_program_tells_who_is_not_root() -> Result<()> {
    let program = Program::new()?;
    // Where another user may go.
    fs::set_permissions(program.directory.path(), fs::Permissions::from_mode(0o755))?;
    let copy = program.path("wan");
    fs::copy(WAN, &copy)?;
    let as_nobody = |words: &[&str]| {
        let who = ["--reuid", "65534", "--clear-groups"];
        Tool::new("setpriv").args(who).args([&copy]).args(words).run()
    };
    let topology = program.path("topology.toml").to_string_lossy().into_owned();
    for words in [&["up", topology.as_str()][..], &["exec", "ams", "--", "true"], &["clean"]] {
        let ended = as_nobody(words)?;
        assert!(ended.code()? == 1 && ended.stderr.contains("root"), "{ended}");
    }
    Ok(())
}

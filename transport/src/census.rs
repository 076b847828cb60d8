//! Who is here: how many connections, from which addresses, how many without a certificate.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::refusals::RefusalReason;

/// The most there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) connections: usize,
    pub(crate) per_address: usize,
    pub(crate) handshakes_per_address: usize,
    pub(crate) strangers: usize,
}

/// Counts connections. Cloning shares the count.
///
/// What is never false: each [`Seat`] is counted once, and so is each stranger's; nothing else is.
#[derive(Clone, Debug)]
pub(crate) struct Census(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    most: Most,
    connections: usize,
    strangers: usize,
    by_origin: HashMap<IpAddr, Here>,
}

/// The connections of one address.
#[derive(Debug, Default)]
struct Here {
    connections: usize,
    /// Those of them whose handshake is not over.
    handshakes: usize,
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    census: Census,
    origin: IpAddr,
    in_handshake: bool,
    stranger: bool,
}

impl Census {
    pub(crate) fn new(most: Most) -> Self {
        Self(Arc::new(Mutex::new(Counts { most, connections: 0, strangers: 0, by_origin: HashMap::new() })))
    }

    /// A place for a connection from this address.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Seat, RefusalReason> {
        let (mut counts, origin) = (self.counts(), origin(address));
        if counts.connections >= counts.most.connections {
            return Err(RefusalReason::TooMany);
        }
        let (most, handshakes) = (counts.most.per_address.max(1), counts.most.handshakes_per_address.max(1));
        let here = counts.by_origin.entry(origin).or_default();
        // Where there is one already, or else there is room for it: no entry stays behind that counts nothing.
        if here.connections >= most || here.handshakes >= handshakes {
            return Err(RefusalReason::TooManyFromAddress);
        }
        here.connections += 1;
        here.handshakes += 1;
        counts.connections += 1;
        Ok(Seat { census: self.clone(), origin, in_handshake: true, stranger: false })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Its handshake is over.
    pub(crate) fn is_in(&mut self) {
        if std::mem::take(&mut self.in_handshake)
            && let Some(here) = self.census.counts().by_origin.get_mut(&self.origin)
        {
            here.handshakes -= 1;
        }
    }

    /// Has shown no certificate.
    ///
    /// # Errors
    /// The reason why there is no place for it as that.
    pub(crate) fn is_strangers(&mut self) -> Result<(), RefusalReason> {
        let mut counts = self.census.counts();
        if counts.strangers >= counts.most.strangers {
            return Err(RefusalReason::TooManyStrangers);
        }
        counts.strangers += 1;
        self.stranger = true;
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.census.counts();
        counts.connections -= 1;
        counts.strangers -= usize::from(self.stranger);
        if let Some(here) = counts.by_origin.get_mut(&self.origin) {
            here.connections -= 1;
            here.handshakes -= usize::from(self.in_handshake);
            if here.connections == 0 {
                counts.by_origin.remove(&self.origin);
            }
        }
    }
}

/// Whose address it is, as far as it can be said: of IPv6 everybody has 2^64, so the upper half counts.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn places_are_bounded_by_address_and_overall_and_given_back() {
        let census = Census::new(Most { connections: 3, per_address: 2, handshakes_per_address: 2, strangers: 1 });
        let first = census.enter(ip("192.0.2.1")).expect("there is room");
        let second = census.enter(ip("::ffff:192.0.2.1")).expect("there is room");
        assert_eq!(census.enter(ip("192.0.2.1")).expect_err("no room"), RefusalReason::TooManyFromAddress);
        let third = census.enter(ip("192.0.2.2")).expect("there is room");
        assert_eq!(census.enter(ip("192.0.2.3")).expect_err("no room"), RefusalReason::TooMany);
        drop((first, second, third));
        let counts = census.counts();
        assert_eq!((counts.connections, counts.strangers, counts.by_origin.len()), (0, 0, 0));
    }

    #[test]
    fn who_has_many_addresses_has_no_more_places() {
        let census = Census::new(Most { connections: 3, per_address: 1, handshakes_per_address: 1, strangers: 1 });
        let _first = census.enter(ip("2001:db8::1")).expect("there is room");
        let refused = census.enter(ip("2001:db8::ffff:1")).expect_err("no room");
        assert_eq!(refused, RefusalReason::TooManyFromAddress);
        census.enter(ip("2001:db8:0:1::1")).expect("there is room for another");
    }

    #[test]
    fn handshakes_of_one_address_are_bounded_until_they_are_over() {
        let census = Census::new(Most { connections: 3, per_address: 3, handshakes_per_address: 1, strangers: 1 });
        let mut first = census.enter(ip("192.0.2.1")).expect("there is room");
        assert_eq!(census.enter(ip("192.0.2.1")).expect_err("no room"), RefusalReason::TooManyFromAddress);
        let other = census.enter(ip("192.0.2.2")).expect("there is room for another");
        first.is_in();
        drop(census.enter(ip("192.0.2.1")).expect("there is room again"));
        drop((first, other));
        assert!(census.counts().by_origin.is_empty());
    }

    #[test]
    fn strangers_are_few() {
        let census = Census::new(Most { connections: 3, per_address: 3, handshakes_per_address: 3, strangers: 1 });
        let mut seats = [(); 2].map(|()| census.enter(ip("192.0.2.1")).expect("there is room"));
        assert_eq!(seats[0].is_strangers(), Ok(()));
        assert_eq!(seats[1].is_strangers(), Err(RefusalReason::TooManyStrangers));
        drop(seats);
        assert_eq!(census.enter(ip("192.0.2.1")).expect("there is room").is_strangers(), Ok(()));
    }
}

//! How the service behaves now, and the orders that change it.

use std::time::Duration;

use crate::settings::duration;

/// How every answer but those of `/control` is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behaviour {
    pub(crate) slow: Duration,
    pub(crate) healthy: bool,
}

/// One order to `/control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Slow(Duration),
    Healthy(bool),
    /// Leave with this code, without waiting for anybody.
    Exit(u8),
}

impl Behaviour {
    /// Follows an order; `Some` is the code to leave with.
    pub(crate) fn follow(&mut self, order: Order) -> Option<u8> {
        match order {
            Order::Slow(slow) => self.slow = slow,
            Order::Healthy(healthy) => self.healthy = healthy,
            Order::Exit(code) => return Some(code),
        }
        None
    }
}

/// Reads a query such as `slow=500ms&unhealthy`: all of it or nothing.
pub(crate) fn orders(query: &str) -> Result<Vec<Order>, String> {
    query.split('&').map(order).collect()
}

fn order(text: &str) -> Result<Order, String> {
    let order = match text.split_once('=').unwrap_or((text, "")) {
        ("slow", value) => duration(value).map(Order::Slow),
        ("exit", value) => value.parse().ok().map(Order::Exit),
        ("healthy", "") => Some(Order::Healthy(true)),
        ("unhealthy", "") => Some(Order::Healthy(false)),
        ("crash", "") => Some(Order::Exit(1)),
        _ => None,
    };
    order.ok_or_else(|| {
        format!("unknown order {text:?}\nhint: slow=500ms, unhealthy, healthy, crash, exit=0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_in_turn() {
        let half = Duration::from_millis(500);
        assert_eq!(
            orders("slow=500ms&unhealthy&healthy&crash&exit=3").unwrap(),
            [
                Order::Slow(half),
                Order::Healthy(false),
                Order::Healthy(true),
                Order::Exit(1),
                Order::Exit(3)
            ]
        );
    }

    #[test]
    fn one_wrong_order_refuses_them_all() {
        for query in
            ["", "slow", "slow=5", "exit=256", "unhealthy=1", "unhealthy&nap", "crash&", "crash=1s"]
        {
            assert!(orders(query).is_err(), "{query:?}");
        }
    }

    #[test]
    fn orders_change_only_what_they_name() {
        let mut behaviour = Behaviour { slow: Duration::ZERO, healthy: true };
        assert_eq!(behaviour.follow(Order::Slow(Duration::from_secs(1))), None);
        assert_eq!(behaviour.follow(Order::Healthy(false)), None);
        assert_eq!(behaviour, Behaviour { slow: Duration::from_secs(1), healthy: false });
        assert_eq!(behaviour.follow(Order::Exit(7)), Some(7));
    }
}

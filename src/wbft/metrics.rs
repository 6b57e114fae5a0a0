//! Live rounds and timeouts, from the metrics that a node exposes for Prometheus.
//!
//! Nothing else shows what happens *between* blocks. By the source of go-wbft the node counts rounds entered
//! (`consensus/wbft/core/round`), rounds that ran out of time (`…/timeout_round`) and heights (`…/sequence`), and serves
//! them under `/debug/metrics/prometheus` with underscores for the slashes. Related nodes have `qbft` or `istanbul/qbft`
//! for `wbft`, so only the beginning and the end of a name count. A node without these counters reports none.
//!
//! The format: <https://prometheus.io/docs/instrumenting/exposition_formats/>

use super::fault::Fault;
use super::http::{agent, fault};
use serde::Serialize;
use std::time::Duration;

/// The largest page of metrics. A geth-like node's is about 100 KiB.
const MAX_PAGE: usize = 2 << 20;

/// Counters since the start of the node. What happened is the difference of two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RoundMetrics {
    /// Rounds entered after round 0 of a height.
    pub round_changes: Option<u64>,
    /// Rounds that ran out of time.
    pub timeouts: Option<u64>,
    /// Heights entered.
    pub heights: Option<u64>,
}

impl RoundMetrics {
    /// Reads a page in the text format. Everything else is skipped: the page has hundreds of other metrics, in any form.
    ///
    /// ```
    /// use wemixvisor::wbft::RoundMetrics;
    /// let page = "# TYPE consensus_wbft_core_round gauge\nconsensus_wbft_core_round 7\n";
    /// assert_eq!(RoundMetrics::parse(page).round_changes, Some(7));
    /// ```
    #[must_use]
    pub fn parse(page: &str) -> Self {
        let mut metrics = RoundMetrics::default();
        for line in page.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
            let Some(counter) = name.strip_prefix("consensus_").and_then(|n| n.split_once("_core_")) else {
                continue;
            };
            let slot = match counter.1 {
                "round" => &mut metrics.round_changes,
                "timeout_round" => &mut metrics.timeouts,
                "sequence" => &mut metrics.heights,
                _ => continue,
            };
            // A counter is a whole number, though it may be written as a float.
            let number = value.parse::<f64>().ok().filter(|n| n.fract() == 0.0 && (0.0..1e15).contains(n));
            *slot = number.map(|n| n as u64).or(*slot);
        }
        metrics
    }

    /// Fetches them from `address`, a `host:port` or a URL. Without a path, it is where a geth-like node has them.
    ///
    /// # Errors
    /// `Unreachable`, `Timeout`, or `Nonsense` if the answer is no page of metrics.
    pub fn fetch(address: &str, timeout: Duration) -> Result<Self, Fault> {
        let url = page_url(address);
        let fault = |err| fault(err, timeout, MAX_PAGE);
        let mut response = agent(timeout).get(&url).call().map_err(fault)?;
        if response.status() != 200 {
            return Err(Fault::Nonsense(format!("HTTP status {} from {url}", response.status())));
        }
        let body = response.body_mut().with_config().limit(MAX_PAGE as u64).read_to_vec().map_err(fault)?;
        Ok(RoundMetrics::parse(&String::from_utf8_lossy(&body)))
    }
}

fn page_url(address: &str) -> String {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let host = url.find("://").map_or(0, |at| at + 3);
    match url[host..].find('/') {
        Some(at) if host + at + 1 < url.len() => url,
        _ => format!("{}/debug/metrics/prometheus", url.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    /// The form in which a geth-like node writes its meters and timers.
    const PAGE: &str = "# TYPE chain_head_block gauge\nchain_head_block 80\n\n\
        # TYPE consensus_wbft_core_consensus_count counter\nconsensus_wbft_core_consensus_count 79\n\n\
        # TYPE consensus_wbft_core_consensus summary\n\
        consensus_wbft_core_consensus {quantile=\"0.5\"} 1.2e+07\n\n\
        # TYPE consensus_wbft_core_round gauge\nconsensus_wbft_core_round 12\n\n\
        # TYPE consensus_wbft_core_sequence gauge\nconsensus_wbft_core_sequence 80\n\n\
        # TYPE consensus_wbft_core_timeout_round gauge\nconsensus_wbft_core_timeout_round 3\n";

    #[test]
    fn the_counters_are_found_among_all_the_others() {
        let all = RoundMetrics { round_changes: Some(12), timeouts: Some(3), heights: Some(80) };
        assert_eq!(RoundMetrics::parse(PAGE), all);
        assert_eq!(RoundMetrics::parse(&PAGE.replace("wbft", "istanbul_qbft")), all);
    }

    #[test]
    fn what_is_not_there_or_no_counter_is_not_told() {
        for page in [
            "",
            "\0\0",
            "consensus_wbft_core_round",
            "consensus_wbft_core_round NaN",
            "# consensus_wbft_core_round 1",
        ] {
            assert_eq!(RoundMetrics::parse(page), RoundMetrics::default(), "{page:?}");
        }
        for bad in ["-1", "1.5", "1e30", "x", "+Inf"] {
            let page = format!("consensus_wbft_core_round {bad}\n");
            assert_eq!(RoundMetrics::parse(&page).round_changes, None, "{bad}");
        }
        assert_eq!(RoundMetrics::parse("consensus_wbft_core_round 1.2e+01 17000").round_changes, Some(12));
    }

    #[test]
    fn an_address_without_a_path_means_the_usual_place() {
        let usual = "http://127.0.0.1:6060/debug/metrics/prometheus";
        for address in ["127.0.0.1:6060", "http://127.0.0.1:6060", "http://127.0.0.1:6060/"] {
            assert_eq!(page_url(address), usual);
        }
        assert_eq!(page_url("http://x/metrics"), "http://x/metrics");
    }

    #[test]
    fn a_page_is_fetched_and_another_answer_is_not_taken_for_one() {
        let answered = |status: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let server = std::thread::spawn(move || {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let length = PAGE.len();
                let stream = stream.get_mut();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{PAGE}"
                )
                .unwrap();
                line
            });
            let metrics = RoundMetrics::fetch(&address, Duration::from_secs(20));
            (metrics, server.join().unwrap())
        };
        let (metrics, request) = answered("200 OK");
        assert_eq!(metrics.unwrap().timeouts, Some(3));
        assert_eq!(request, "GET /debug/metrics/prometheus HTTP/1.1\r\n");
        assert!(matches!(answered("404 Not Found").0, Err(Fault::Nonsense(_))));
    }
}

//! JSON-RPC over HTTP and HTTPS.
//!
//! A request goes to the node and nowhere else: proxies of the environment are not used, and a redirect is reported, not
//! followed.

use super::fault::{Fault, excerpt};
use super::json;
use super::session::{RpcReply, answer, request};
use crate::url::split_login;
use serde_json::Value;
use std::io::ErrorKind;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{StatusCode, header};

/// A client of one URL. A connection is kept between calls, and replaced when it is found dead.
#[derive(Debug)]
pub(super) struct Http {
    agent: Agent,
    url: String,
    login: Option<String>,
    next_id: u64,
    timeout: Duration,
}

impl Http {
    pub(super) fn new(url: &str, timeout: Duration) -> Self {
        let (url, login) = split_login(url);
        Http { agent: agent(timeout), url, login, next_id: 1, timeout }
    }

    pub(super) fn call(&mut self, method: &str, params: &Value, limit: usize) -> Result<RpcReply, Fault> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = self.agent.post(&self.url).header(header::CONTENT_TYPE, "application/json");
        if let Some(login) = &self.login {
            request = request.header(header::AUTHORIZATION, login);
        }
        let mut response =
            request.send(self::request(id, method, params)).map_err(|e| fault(e, self.timeout, limit))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(limit as u64).read_to_vec();
        match status {
            StatusCode::OK => {}
            // The answer of a proxy whose node is not there now.
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                return Err(Fault::Unreachable(format!("HTTP status {status}")));
            }
            _ => {
                let body = body.unwrap_or_default();
                return Err(Fault::Nonsense(format!("HTTP status {status}: {}", excerpt(&body))));
            }
        }
        let body = body.map_err(|e| fault(e, self.timeout, limit))?;
        let (answered, reply) = answer(json::parse(&body)?, &body)?;
        if answered != id {
            return Err(Fault::Nonsense(format!("an answer with id {answered} instead of {id}")));
        }
        Ok(reply)
    }
}

/// A client that goes to the node and nowhere else, and takes this long at most for a call.
pub(super) fn agent(timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .accept_encoding("identity")
        .user_agent(concat!("wemixvisor/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(1)
        .timeout_global(Some(timeout));
    config.build().new_agent()
}

/// The fault behind an error of a call that may take `timeout` and give `limit` bytes.
pub(super) fn fault(err: ureq::Error, timeout: Duration, limit: usize) -> Fault {
    match err {
        ureq::Error::Timeout(_) => Fault::Timeout(timeout),
        ureq::Error::Io(e) if e.kind() == ErrorKind::TimedOut => Fault::Timeout(timeout),
        ureq::Error::BodyExceedsLimit(_) => Fault::Nonsense(format!("an answer of more than {limit} bytes")),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            Fault::Nonsense(format!("not HTTP: {err}"))
        }
        other => Fault::Unreachable(other.to_string()),
    }
}

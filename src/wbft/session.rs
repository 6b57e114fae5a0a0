//! JSON-RPC over a connection that carries messages both ways: IPC.
//!
//! Replies come in any order and notifications come between them, so each reply is matched by its id. Replies are kept
//! until they are collected, notifications up to a limit, beyond which the oldest are dropped: of heads only the newest
//! matters.

use super::fault::{Fault, excerpt};
use super::json;
use super::socket::{Handle, Socket};
use crate::printable::foreign;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::time::Instant;

/// The notifications kept until they are asked for.
const MAX_NOTICES: usize = 64;

/// The answer to one request: its result, or the node's own error.
pub(super) type RpcReply = Result<Value, Fault>;

/// The state of the conversation over one connection. After any fault but a refusal it is worthless.
#[derive(Debug)]
pub(super) struct Session {
    wire: Socket,
    next_id: u64,
    /// The requests under way, each with its reply once that is here.
    pending: BTreeMap<u64, Option<RpcReply>>,
    notices: VecDeque<Value>,
}

impl Session {
    /// Connects to a node's IPC socket.
    pub(super) fn connect(path: &Path) -> Result<Self, Fault> {
        Ok(Session {
            wire: Socket::connect(path)?,
            next_id: 1,
            pending: BTreeMap::new(),
            notices: VecDeque::new(),
        })
    }

    pub(super) fn handle(&self) -> io::Result<Handle> {
        self.wire.handle()
    }

    /// Sends a request and returns its id; `None` if that took beyond the deadline.
    pub(super) fn request(
        &mut self,
        method: &str,
        params: &Value,
        deadline: Instant,
    ) -> Result<Option<u64>, Fault> {
        let id = self.next_id;
        self.next_id += 1;
        if !self.wire.send(&request(id, method, params), deadline)? {
            return Ok(None);
        }
        self.pending.insert(id, None);
        Ok(Some(id))
    }

    /// Waits for the reply to request `id`; `None` if it did not come before the deadline.
    pub(super) fn reply(
        &mut self,
        id: u64,
        deadline: Instant,
        limit: usize,
    ) -> Result<Option<RpcReply>, Fault> {
        loop {
            if let Some(Some(_)) = self.pending.get(&id) {
                return Ok(self.pending.remove(&id).flatten());
            }
            match self.wire.receive(Some(deadline), limit)? {
                Some(message) => self.sort(&message)?,
                None => return Ok(None),
            }
        }
    }

    /// The next notification, or `None` if none came before the deadline.
    pub(super) fn notice(&mut self, deadline: Option<Instant>, limit: usize) -> Result<Option<Value>, Fault> {
        while self.notices.is_empty() {
            match self.wire.receive(deadline, limit)? {
                Some(message) => self.sort(&message)?,
                None => return Ok(None),
            }
        }
        Ok(self.notices.pop_front())
    }

    fn sort(&mut self, message: &[u8]) -> Result<(), Fault> {
        let value = json::parse(message)?;
        if value.get("method").is_some() && value.get("id").is_none() {
            if self.notices.len() == MAX_NOTICES {
                self.notices.pop_front();
            }
            self.notices.push_back(value);
            return Ok(());
        }
        let (id, reply) = answer(value, message)?;
        match self.pending.get_mut(&id) {
            Some(slot @ None) => {
                *slot = Some(reply);
                Ok(())
            }
            _ => Err(Fault::Nonsense(format!("an answer with id {id}, which was not asked for"))),
        }
    }
}

/// The text of a request.
pub(super) fn request(id: u64, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

/// Takes an answer apart: its id, and its result or error.
pub(super) fn answer(mut value: Value, raw: &[u8]) -> Result<(u64, RpcReply), Fault> {
    let bad = |what: &str| Fault::Nonsense(format!("{what}: {}", excerpt(raw)));
    let answer = value.as_object_mut().ok_or_else(|| bad("not an object"))?;
    if answer.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(bad("not JSON-RPC 2.0"));
    }
    let id = answer.get("id").and_then(Value::as_u64).ok_or_else(|| bad("no id of ours"))?;
    match (answer.remove("result"), answer.remove("error")) {
        (Some(result), None | Some(Value::Null)) => Ok((id, Ok(result))),
        (None | Some(Value::Null), Some(error)) => {
            let code =
                error.get("code").and_then(Value::as_i64).ok_or_else(|| bad("an error without a code"))?;
            let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
            // The node's text goes to logs and status: one line of reasonable length.
            let message = foreign(message);
            Ok((id, Err(Fault::Refused { code, message })))
        }
        _ => Err(bad("neither a result nor an error alone")),
    }
}

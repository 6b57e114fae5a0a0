//! JSON-RPC as a geth-like node speaks it, whatever the transport: requests in, the text of replies out.
//!
//! The order of keys, the error codes and the exact messages are the recorded ones. Misbehaviour that any transport can
//! show (wrong ids, wrong shapes, silence) is applied here, in one place.

use super::lies;
use super::node::Node;
use super::options::Rpc;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// An error object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: i64,
    pub(crate) message: String,
}

impl Failure {
    /// Wrong parameters.
    pub(crate) fn params(message: impl Into<String>) -> Failure {
        Failure { code: -32602, message: message.into() }
    }

    /// An error of the application.
    pub(crate) fn application(message: impl Into<String>) -> Failure {
        Failure { code: -32000, message: message.into() }
    }

    fn request(message: &str) -> Failure {
        Failure { code: -32600, message: message.into() }
    }
}

/// The result of a method.
pub(crate) type Outcome = Result<Value, Failure>;

/// The reply to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Text(String),
    /// The same for a batch that is refused as a whole, which HTTP sends without a newline.
    Bare(String),
    /// Nothing, as for a notification.
    Silence,
    /// Nothing ever again on this connection.
    Close,
}

/// How notifications reach the other side; false when they no longer can.
type Write = dyn Fn(&str) -> bool + Send + Sync;

/// One connection's view of the node.
pub(crate) struct Session {
    pub(crate) node: Arc<Node>,
    /// Modules served; empty means all.
    modules: Vec<String>,
    /// None where notifications are not supported.
    write: Option<Arc<Write>>,
    subscriptions: Arc<Mutex<Vec<String>>>,
    /// Subscriptions whose first notification must come after the reply.
    starting: Mutex<Vec<(String, crossbeam_channel::Receiver<super::chain::Block>)>>,
}

impl Session {
    /// A session over HTTP: chosen modules, no notifications.
    pub(crate) fn http(node: Arc<Node>, modules: Vec<String>) -> Session {
        Session { node, modules, write: None, subscriptions: Arc::default(), starting: Mutex::default() }
    }

    /// A session that can be notified; no modules means all.
    pub(crate) fn stream(node: Arc<Node>, modules: Vec<String>, write: Arc<Write>) -> Session {
        Session { write: Some(write), ..Session::http(node, modules) }
    }

    /// Answers one request or batch.
    pub(crate) fn answer(&self, request: &Value) -> Answer {
        let mode = self.node.options().rpc;
        match mode {
            Rpc::Hang => return Answer::Silence,
            Rpc::Close => return Answer::Close,
            Rpc::Garbage => return Answer::Text("<html>502 Bad Gateway</html>".into()),
            _ => {}
        }
        match request {
            Value::Array(batch) => self.batch(batch),
            single => self.single(single, mode).map_or(Answer::Silence, Answer::Text),
        }
    }

    /// Lets subscriptions made by the last answers send their notifications. Call it after those were sent.
    pub(crate) fn start_notifications(&self) {
        let starting = std::mem::take(&mut *self.starting.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, blocks) in starting {
            let (node, subscriptions) = (self.node.clone(), self.subscriptions.clone());
            let Some(write) = self.write.clone() else { return };
            std::thread::spawn(move || {
                for block in blocks {
                    if !subscriptions.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
                        break;
                    }
                    let head = lies::announce(&node, super::eth::head_notification(&node, &block));
                    let text = format!(
                        r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":"{id}","result":{head}}}}}"#
                    );
                    if node.options().rpc != Rpc::Hang && !write(&text) {
                        break;
                    }
                }
            });
        }
    }

    /// Ends every subscription, as the end of the connection does.
    pub(crate) fn end(&self) {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn batch(&self, batch: &[Value]) -> Answer {
        if batch.is_empty() {
            return Answer::Bare(failure("null", &Failure::request("empty batch")));
        }
        // Only HTTP limits batches.
        if self.write.is_none() && batch.len() > 1000 {
            let id = batch[0].get("id").map_or("null".into(), Value::to_string);
            return Answer::Bare(format!("[{}]", failure(&id, &Failure::request("batch too large"))));
        }
        let replies: Vec<String> =
            batch.iter().filter_map(|request| self.single(request, Rpc::Normal)).collect();
        if replies.is_empty() { Answer::Silence } else { Answer::Text(format!("[{}]", replies.join(","))) }
    }

    fn single(&self, request: &Value, mode: Rpc) -> Option<String> {
        let invalid = |id: &str| Some(failure(id, &Failure::request("invalid request")));
        let Some(object) = request.as_object() else { return invalid("null") };
        let id = object.get("id").map(Value::to_string);
        let method = object.get("method").and_then(Value::as_str);
        let (Some("2.0"), Some(method)) = (object.get("jsonrpc").and_then(Value::as_str), method) else {
            return invalid(id.as_deref().unwrap_or("null"));
        };
        let params = object.get("params").unwrap_or(&Value::Null);
        let outcome = self.call(method, params).map(|result| lies::tell(&self.node, method, params, result));
        let id = id?;
        Some(match (mode, outcome) {
            (Rpc::WrongId, Ok(result)) => success("4711", &result),
            (Rpc::WrongShape, Ok(_)) => success(&id, &serde_json::json!([{"unexpected": 1.5}])),
            (Rpc::Huge, Ok(_)) => success(&id, &Value::from("0x".to_owned() + &"0".repeat(16 << 20))),
            (Rpc::Lie, Ok(_)) if method == "eth_blockNumber" => success(&id, &Value::from("0x3b9aca00")),
            (_, Ok(result)) => success(&id, &result),
            (_, Err(err)) => failure(&id, &err),
        })
    }

    fn call(&self, method: &str, params: &Value) -> Outcome {
        let missing = || Failure {
            code: -32601,
            message: format!("the method {method} does not exist/is not available"),
        };
        let module = method.split('_').next().unwrap_or_default();
        let served =
            self.modules.is_empty() || module == "rpc" || self.modules.iter().any(|name| name == module);
        if !served {
            return Err(missing());
        }
        if self.node.options().lacks.iter().any(|lacking| lacking == module) {
            return Err(missing());
        }
        let params = Params::new(params)?;
        match method {
            "eth_subscribe" => self.subscribe(&params),
            "eth_unsubscribe" => self.unsubscribe(&params),
            "rpc_modules" => params.at_most(0).map(|()| self.list_modules()),
            _ if module == "istanbul" => {
                super::istanbul::call(&self.node, method, &params).ok_or_else(missing)?
            }
            _ if module == "debug" => super::debug::call(&self.node, method, &params).ok_or_else(missing)?,
            _ if module == "admin" => super::admin::call(&self.node, method, &params).ok_or_else(missing)?,
            _ => super::eth::call(&self.node, method, &params).ok_or_else(missing)?,
        }
    }

    fn list_modules(&self) -> Value {
        const ALL: [&str; 10] =
            ["admin", "debug", "engine", "eth", "istanbul", "miner", "net", "rpc", "txpool", "web3"];
        let named =
            |name: &&str| self.modules.is_empty() || *name == "rpc" || self.modules.iter().any(|m| m == name);
        ALL.into_iter().filter(named).map(|name| (name.to_owned(), Value::from("1.0"))).collect()
    }

    fn subscribe(&self, params: &Params) -> Outcome {
        if self.write.is_none() {
            return Err(Failure { code: -32601, message: "notifications not supported".into() });
        }
        let kind = params.get(0).and_then(Value::as_str).unwrap_or_default();
        if kind != "newHeads" && kind != "syncing" {
            let message = format!("no {kind:?} subscription in eth namespace");
            return Err(Failure { code: -32601, message });
        }
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let what = format!("subscription {} {}", super::log::now_ms(), subscriptions.len());
        let id = super::hex::data(&self.node.params.noise(&what, 16));
        subscriptions.push(id.clone());
        if kind == "newHeads" {
            let blocks = self.node.subscribe();
            self.starting.lock().unwrap_or_else(PoisonError::into_inner).push((id.clone(), blocks));
        }
        Ok(id.into())
    }

    fn unsubscribe(&self, params: &Params) -> Outcome {
        let id = params.get(0).and_then(Value::as_str).unwrap_or_default();
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = subscriptions.len();
        subscriptions.retain(|known| known != id);
        if subscriptions.len() == before {
            return Err(Failure::application("subscription not found"));
        }
        Ok(true.into())
    }
}

/// The parameters of a call.
pub(crate) struct Params<'a>(&'a [Value]);

impl<'a> Params<'a> {
    fn new(params: &'a Value) -> Result<Params<'a>, Failure> {
        match params {
            Value::Null => Ok(Params(&[])),
            Value::Array(list) => Ok(Params(list)),
            _ => Err(Failure::params("non-array args")),
        }
    }

    /// The parameter, unless it is missing or null.
    pub(crate) fn get(&self, at: usize) -> Option<&'a Value> {
        self.0.get(at).filter(|value| !value.is_null())
    }

    /// The parameter, which must be there.
    pub(crate) fn required(&self, at: usize) -> Result<&'a Value, Failure> {
        self.get(at).ok_or_else(|| Failure::params(format!("missing value for required argument {at}")))
    }

    /// Refuses more than `count` parameters.
    pub(crate) fn at_most(&self, count: usize) -> Result<(), Failure> {
        if self.0.len() > count {
            return Err(Failure::params(format!("too many arguments, want at most {count}")));
        }
        Ok(())
    }

    /// A block number or tag, which is given as a negative number: latest -2, pending -1, finalized -3, safe -4.
    pub(crate) fn block(&self, at: usize) -> Result<Option<i64>, Failure> {
        self.get(at).map(|value| block_number(value).map_err(|why| invalid(at, &why))).transpose()
    }

    /// A 32-byte hash.
    pub(crate) fn hash(&self, at: usize) -> Result<String, Failure> {
        let text = self.required(at)?.as_str().unwrap_or_default();
        let digits = text.strip_prefix("0x").ok_or_else(|| invalid(at, "hex string without 0x prefix"))?;
        if digits.len() != 64 {
            let why = format!("hex string has length {}, want 64 for common.Hash", digits.len());
            return Err(invalid(at, &why));
        }
        Ok(text.to_ascii_lowercase())
    }
}

fn invalid(at: usize, why: &str) -> Failure {
    Failure::params(format!("invalid argument {at}: {why}"))
}

fn block_number(value: &Value) -> Result<i64, String> {
    let without_prefix = "hex string without 0x prefix";
    let Some(text) = value.as_str() else { return Err(without_prefix.into()) };
    match text {
        "earliest" => return Ok(0),
        "pending" => return Ok(-1),
        "latest" => return Ok(-2),
        "finalized" => return Ok(-3),
        "safe" => return Ok(-4),
        _ => {}
    }
    let digits = text.strip_prefix("0x").ok_or(without_prefix)?;
    if digits.is_empty() {
        return Err("hex string \"0x\"".into());
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err("hex number with leading zero digits".into());
    }
    let number =
        u64::from_str_radix(digits, 16).map_err(|_| match digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => "hex number > 64 bits",
            false => "invalid hex string",
        })?;
    i64::try_from(number).map_err(|_| "block number larger than int64".into())
}

fn success(id: &str, result: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// The text of an error reply.
pub(crate) fn failure(id: &str, err: &Failure) -> String {
    let message = Value::from(err.message.as_str());
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{},"message":{message}}}}}"#, err.code)
}

//! The options of a simulated node beyond a node's own command line: its identity, its chain, its misbehaviour.
//!
//! One table of names, whatever the source: the stamp of the binary, `--sim.NAME VALUE` arguments, and `sim.json`.
//! A later source wins, in that order. `sim.json` is read again whenever it changes, so a running node can be turned
//! bad (or good again) from outside. The meaning of each name is told in `main.rs`.

use super::store::Layout;
use std::path::PathBuf;
use std::str::FromStr;

/// How the RPC servers behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rpc {
    /// As recorded.
    Normal,
    /// Never opened.
    Off,
    /// Accepts and reads, never answers.
    Hang,
    /// Answers with bytes that are no JSON.
    Garbage,
    /// Answers with a valid reply of many megabytes.
    Huge,
    /// Answers under another id.
    WrongId,
    /// Answers with a result of an unexpected type.
    WrongShape,
    /// Closes each connection at the first request.
    Close,
    /// Answers with a height far beyond the real one.
    Lie,
}

/// A lie that otherwise correct answers carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lie {
    /// Another chain id and genesis block, instead of a height far beyond the real one.
    pub(crate) chain: bool,
    /// The number of answers that carry it.
    pub(crate) answers: u64,
}

/// For how long an engine that is on sends no consensus message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mute {
    Never,
    /// Until `miner_start` is called.
    UntilStart,
    Always,
}

/// The moment at which a node ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Start,
    Height(u64),
    After(u64),
}

/// How it ends then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
    /// Writes `upgrade-info.json` for this plan and exits 0, as a Cosmos chain does.
    Upgrade(String),
}

/// Every option, with the value it has until a source sets another.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) fork: Vec<u64>,
    pub(crate) db: u32,
    pub(crate) layout: Layout,
    pub(crate) smoke: Option<End>,
    pub(crate) smoke_hang: bool,

    pub(crate) network: Option<PathBuf>,
    pub(crate) index: usize,
    pub(crate) validators: usize,
    pub(crate) crowd: bool,
    pub(crate) chain_id: u64,
    pub(crate) period: u64,
    pub(crate) timeout: Option<u64>,
    pub(crate) slow: u64,
    pub(crate) catchup: Option<u64>,
    pub(crate) redial: Option<u64>,
    pub(crate) drop: Option<u64>,
    pub(crate) public: bool,
    pub(crate) host: Option<usize>,
    pub(crate) twin: bool,
    pub(crate) refuse: Option<u64>,
    pub(crate) epoch: u64,
    pub(crate) fields: u8,
    pub(crate) transitions: String,
    pub(crate) finality_lag: Option<u64>,
    pub(crate) dir: Option<PathBuf>,

    pub(crate) end: Option<(End, When)>,
    pub(crate) stop: Option<u64>,
    pub(crate) stop_code: i32,
    pub(crate) term_limit: u32,
    pub(crate) rpc: Rpc,
    pub(crate) rpc_delay: u64,
    pub(crate) rpc_lie: Option<Lie>,
    pub(crate) lacks: Vec<String>,
    pub(crate) migrate: u64,
    pub(crate) rewind: u64,
    pub(crate) stop_rewind: u64,
    pub(crate) short_sync: u64,
    pub(crate) engine_stop: u64,
    pub(crate) backwards: Option<(u64, u64)>,
    pub(crate) freeze: Option<u64>,
    pub(crate) own_block: bool,
    pub(crate) mute: Mute,
    pub(crate) flood: usize,
    pub(crate) grandchild: Option<u64>,
    pub(crate) grandchild_lock: bool,
    pub(crate) port_hang: bool,
    pub(crate) tether: bool,
    pub(crate) lifetime: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: "Simnode".into(),
            version: "v1.0.0".into(),
            fork: Vec::new(),
            db: 8,
            layout: Layout::Lines,
            smoke: None,
            smoke_hang: false,
            network: None,
            index: 0,
            validators: 1,
            crowd: false,
            chain_id: 8383,
            period: 1000,
            timeout: None,
            slow: 0,
            catchup: None,
            redial: None,
            drop: None,
            public: false,
            host: None,
            twin: false,
            refuse: None,
            epoch: 10,
            fields: 10,
            transitions: "[]".into(),
            finality_lag: None,
            dir: None,
            end: None,
            stop: Some(10),
            stop_code: 0,
            term_limit: 10,
            rpc: Rpc::Normal,
            rpc_delay: 0,
            rpc_lie: None,
            lacks: Vec::new(),
            migrate: 0,
            rewind: 0,
            stop_rewind: 0,
            short_sync: 0,
            engine_stop: 0,
            backwards: None,
            freeze: None,
            own_block: false,
            mute: Mute::Never,
            flood: 0,
            grandchild: None,
            grandchild_lock: false,
            port_hang: false,
            tether: false,
            lifetime: None,
        }
    }
}

impl Options {
    /// Sets one option; the error names what was wrong with it.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.assign(name, value).map_err(|why| format!("option {name}={value}: {why}"))
    }

    /// Sets all options of a JSON object, whose values may be strings, numbers or booleans.
    pub(crate) fn set_json(&mut self, text: &str) -> Result<(), String> {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|err| err.to_string())?;
        object.iter().try_for_each(|(name, value)| match value {
            serde_json::Value::String(text) => self.set(name, text),
            other => self.set(name, &other.to_string()),
        })
    }

    /// Time until an unanswered round 0 is given up, in milliseconds.
    pub(crate) fn round_timeout(&self) -> u64 {
        self.timeout.unwrap_or(2 * self.period)
    }

    /// Time from the last contact with the peers to the next dial, in milliseconds.
    pub(crate) fn redial_interval(&self) -> u64 {
        self.redial.unwrap_or(35 * self.period)
    }

    /// The address behind which the node is: dials of all nodes of one address count together.
    pub(crate) fn address(&self) -> usize {
        self.host.unwrap_or(self.index)
    }

    /// Time for which a peer on a public address refuses a second connection, in milliseconds.
    pub(crate) fn refusal(&self) -> u64 {
        self.refuse.unwrap_or(30 * self.period)
    }

    /// Time from being connected to the consensus message that costs a silent validator its peers, in milliseconds.
    /// Recorded were 0.4 to 2.5 periods; `dice` chooses among them.
    pub(crate) fn drop_delay(&self, dice: u64) -> u64 {
        self.drop.unwrap_or(self.period * (4 + dice % 22) / 10)
    }

    /// Whether the program has the interface of v1.1: it differs in a few answers.
    pub(crate) fn is_v1_1(&self) -> bool {
        self.version.trim_start_matches('v').starts_with("1.1.")
    }

    /// Blocks by which `finalized` and `safe` lag behind the head.
    pub(crate) fn finality_lag(&self) -> u64 {
        self.finality_lag.unwrap_or(if self.is_v1_1() { 2 } else { 0 })
    }

    fn assign(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "name" => self.name = value.into(),
            "version" => self.version = value.into(),
            "fork" => self.fork = list(value)?,
            "db" => self.db = number(value)?,
            "layout" => self.layout = layout(value)?,
            "smoke" if value == "hang" => self.smoke_hang = true,
            "smoke" => self.smoke = Some(end(value)?),

            "network" => self.network = Some(value.into()),
            "index" => self.index = number(value)?,
            "validators" => self.validators = positive(value)? as usize,
            "crowd" => self.crowd = number(value)?,
            "chain-id" => self.chain_id = number(value)?,
            "period" => self.period = positive(value)?,
            "timeout" => self.timeout = Some(positive(value)?),
            "slow" => self.slow = number(value)?,
            "catchup" => self.catchup = Some(number(value)?),
            "redial" => self.redial = Some(number(value)?),
            "drop" => self.drop = Some(number(value)?),
            "public" => self.public = number(value)?,
            "host" => self.host = Some(number(value)?),
            "twin" => self.twin = number(value)?,
            "refuse" => self.refuse = Some(number(value)?),
            "epoch" => self.epoch = positive(value)?,
            "fields" => self.fields = number(value)?,
            "transitions" => self.transitions = json_list(value)?,
            "finality-lag" => self.finality_lag = Some(number(value)?),
            "dir" => self.dir = Some(value.into()),

            "end" => self.end = Some(ending(value)?),
            "stop" => self.stop = if value == "never" { None } else { Some(number(value)?) },
            "stop-code" => self.stop_code = number(value)?,
            "term-limit" => self.term_limit = number(value)?,
            "rpc" => self.rpc = rpc(value)?,
            "rpc-delay" => self.rpc_delay = number(value)?,
            "rpc-lie" => self.rpc_lie = lie(value)?,
            "lacks" => self.lacks = value.split(',').map(str::to_owned).collect(),
            "migrate" => self.migrate = number(value)?,
            "rewind" => self.rewind = number(value)?,
            "engine-stop" => self.engine_stop = number(value)?,
            "short-sync" => self.short_sync = number(value)?,
            "stop-rewind" => self.stop_rewind = number(value)?,
            "backwards" => {
                let (blocks, height) = value.split_once('@').ok_or("want BLOCKS@HEIGHT")?;
                self.backwards = Some((number(blocks)?, number(height)?));
            }
            "freeze" => self.freeze = if value == "never" { None } else { Some(number(value)?) },
            "own-block" => self.own_block = number(value)?,
            "mute" => self.mute = mute(value)?,
            "flood" => self.flood = number(value)?,
            "grandchild" => self.grandchild = Some(number(value)?),
            "grandchild-lock" => self.grandchild_lock = number(value)?,
            "port-hang" => self.port_hang = number(value)?,
            "tether" => self.tether = number(value)?,
            "lifetime" => self.lifetime = Some(number(value)?),
            _ => return Err("there is no such option".into()),
        }
        Ok(())
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a value it can have"))
}

fn positive(text: &str) -> Result<u64, String> {
    number(text).and_then(|value| if value > 0 { Ok(value) } else { Err("must not be 0".into()) })
}

fn list(text: &str) -> Result<Vec<u64>, String> {
    text.split(',').filter(|item| !item.is_empty()).map(number).collect()
}

/// `CODE`, a signal's name, or `upgrade:NAME`.
fn end(text: &str) -> Result<End, String> {
    if let Some(plan) = text.strip_prefix("upgrade:") {
        return Ok(End::Upgrade(plan.into()));
    }
    match text {
        "SIGABRT" => Ok(End::Signal(6)),
        "SIGKILL" => Ok(End::Signal(9)),
        "SIGSEGV" => Ok(End::Signal(11)),
        _ => number(text).map(End::Code),
    }
}

/// `END` (at once), `END@HEIGHT`, or `END+MILLISECONDS`.
fn ending(text: &str) -> Result<(End, When), String> {
    if let Some((how, height)) = text.split_once('@') {
        return Ok((end(how)?, When::Height(number(height)?)));
    }
    if let Some((how, after)) = text.split_once('+') {
        return Ok((end(how)?, When::After(number(after)?)));
    }
    Ok((end(text)?, When::Start))
}

fn layout(text: &str) -> Result<Layout, String> {
    match text {
        "lines" => Ok(Layout::Lines),
        "pebble" => Ok(Layout::Pebble),
        _ => Err("want lines or pebble".into()),
    }
}

fn rpc(text: &str) -> Result<Rpc, String> {
    Ok(match text {
        "normal" => Rpc::Normal,
        "off" => Rpc::Off,
        "hang" => Rpc::Hang,
        "garbage" => Rpc::Garbage,
        "huge" => Rpc::Huge,
        "wrong-id" => Rpc::WrongId,
        "wrong-shape" => Rpc::WrongShape,
        "close" => Rpc::Close,
        "lie" => Rpc::Lie,
        _ => return Err("unknown kind of RPC".into()),
    })
}

fn mute(text: &str) -> Result<Mute, String> {
    match text {
        "true" => Ok(Mute::Always),
        "until-start" => Ok(Mute::UntilStart),
        "false" => Ok(Mute::Never),
        _ => Err("want true, until-start or false".into()),
    }
}

/// `lie@N` or `chain@N`; without `@N` every answer; `none` ends it.
fn lie(text: &str) -> Result<Option<Lie>, String> {
    let (kind, answers) = match text.split_once('@') {
        Some((kind, answers)) => (kind, number(answers)?),
        None => (text, u64::MAX),
    };
    match kind {
        "none" => Ok(None),
        "lie" => Ok(Some(Lie { chain: false, answers })),
        "chain" => Ok(Some(Lie { chain: true, answers })),
        _ => Err("want lie[@N], chain[@N] or none".into()),
    }
}

fn json_list(text: &str) -> Result<String, String> {
    let list: Result<Vec<serde_json::Value>, _> = serde_json::from_str(text);
    list.map(|_| text.to_owned()).map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_read() {
        assert_eq!(ending("3"), Ok((End::Code(3), When::Start)));
        assert_eq!(ending("0@50"), Ok((End::Code(0), When::Height(50))));
        assert_eq!(ending("SIGSEGV+200"), Ok((End::Signal(11), When::After(200))));
        assert_eq!(ending("upgrade:v2@9"), Ok((End::Upgrade("v2".into()), When::Height(9))));
        assert!(ending("maybe").is_err());
    }

    #[test]
    fn later_sources_win_and_mistakes_are_named() {
        let mut options = Options::default();
        options.set("period", "50").unwrap();
        options.set_json(r#"{"period": 20, "rpc": "hang", "own-block": true}"#).unwrap();
        assert_eq!((options.period, options.rpc, options.own_block), (20, Rpc::Hang, true));
        assert_eq!((options.round_timeout(), options.redial_interval(), options.refusal()), (40, 700, 600));
        let err = options.set("perod", "1").unwrap_err();
        assert_eq!(err, "option perod=1: there is no such option");
        assert!(options.set("period", "0").is_err());
    }
    #[test]
    fn lies_are_counted() {
        assert_eq!(lie("lie@2"), Ok(Some(Lie { chain: false, answers: 2 })));
        assert_eq!(lie("chain"), Ok(Some(Lie { chain: true, answers: u64::MAX })));
        assert_eq!(lie("none"), Ok(None));
        assert!(lie("truth").is_err());
    }

    #[test]
    fn peers_are_lost_within_the_recorded_time() {
        let options = Options::default();
        let delays: Vec<u64> = (0..100).map(|dice| options.drop_delay(dice)).collect();
        assert_eq!((delays.iter().min(), delays.iter().max()), (Some(&400), Some(&2500)));
    }

    #[test]
    fn the_interface_follows_the_version() {
        let mut options = Options::default();
        assert!(!options.is_v1_1() && options.finality_lag() == 0);
        options.set("version", "v1.1.0").unwrap();
        assert!(options.is_v1_1() && options.finality_lag() == 2);
        assert!(options.set("transitions", "{}").is_err());
    }
}

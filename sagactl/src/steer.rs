//! `pause`, `resume`, `retry`, `skip`, `compensate`: operators' inputs, ordered with all others on `order-saga`, answered by the
//! saga itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use domain_types::{LineNumber, MessageId, OrderId, RequestId, Timestamp};
use messaging::{LogReader, Output, wall_clock};
use order_orchestrator::PresentSaga;
use saga::{CommandRef, Decision, Saga, decide};
use schemas::{
    CompensateSaga, Envelope, OrderEvent, OrderSagaMessage, PauseSaga, RequestOutcome, ResumeSaga, RetryStep,
    SkipStep, StepName, Topic,
};
use serde::Serialize;
use uuid::Uuid;

use crate::cli::Steer;
use crate::failure::{Failure, Verdict};
use crate::filter::Filter;
use crate::servers::Servers;
use crate::terminal::{Terminal, Tone};
use crate::view::step_word;
use crate::{list, show};

/// How long the saga's answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// What is asked of a saga.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Pause,
    Resume,
    Retry { step: Option<StepName>, line: Option<LineNumber> },
    Skip { step: Option<StepName>, settled_by: Option<String> },
    Compensate,
}

/// Who asks, and why.
struct Asking<'a> {
    operator: &'a str,
    reason: &'a str,
}

/// One input, ready to be published.
struct Asked {
    order_id: OrderId,
    state: &'static str,
    request_id: RequestId,
    command: String,
    message: OrderSagaMessage,
    /// Why it would be refused as things stand.
    refused_now: Option<&'static str>,
}

/// What an operator may do, or why not.
#[derive(Debug, Serialize)]
pub(crate) struct Allowed {
    /// As it is typed behind `sagactl`.
    pub(crate) command: String,
    /// The code it would be refused with now.
    pub(crate) refused: Option<&'static str>,
}

/// What each operator's command would do to a saga now.
pub(crate) fn allowed(saga: &Saga, now: Timestamp) -> Vec<Allowed> {
    let mut acts = vec![Act::Pause, Act::Resume];
    for CommandRef { step, line } in saga.awaited() {
        acts.push(Act::Retry { step: Some(step), line });
        if line.is_none() {
            acts.push(Act::Skip { step: Some(step), settled_by: Some("REFERENCE".to_owned()) });
        }
    }
    acts.push(Act::Compensate);
    let asking = Asking { operator: "-", reason: "-" };
    let messages = acts.iter().filter_map(|act| messages(act, saga, &asking).ok()).flatten();
    messages.map(|(command, _, message)| Allowed { command, refused: refusal(saga, &message, now) }).collect()
}

fn refusal(saga: &Saga, message: &OrderSagaMessage, now: Timestamp) -> Option<&'static str> {
    match decide(Some(saga), message, now) {
        Decision::Advance(_) => None,
        Decision::Refuse(code, _) => Some(code.as_str()),
        Decision::Ignore(reason) => Some(reason.as_str()),
    }
}

type Message = (String, RequestId, OrderSagaMessage);

/// What is to be published for one saga.
fn messages(act: &Act, saga: &Saga, asking: &Asking<'_>) -> Result<Vec<Message>, String> {
    let (operator, reason) = (asking.operator.to_owned(), asking.reason.to_owned());
    let request_id = RequestId(Uuid::new_v4());
    let one = |command: &str, message: OrderSagaMessage| Ok(vec![(command.to_owned(), request_id, message)]);
    match act {
        Act::Pause => one("pause", PauseSaga { request_id, operator, reason }.into()),
        Act::Resume => one("resume", ResumeSaga { request_id, operator, reason }.into()),
        Act::Compensate => one("compensate", CompensateSaga { request_id, operator, reason }.into()),
        Act::Retry { step, line } => {
            let commands = match step {
                Some(step) => chosen(saga, *step, *line),
                None => failed(saga),
            };
            if commands.is_empty() {
                return Err("nothing failed; name the unanswered step with --step".to_owned());
            }
            let message = |CommandRef { step, line }: CommandRef| {
                let request_id = RequestId(Uuid::new_v4());
                let (operator, reason) = (operator.clone(), reason.clone());
                let place = line.map(|line| format!(" --line {}", line.0)).unwrap_or_default();
                let command = format!("retry --step {}{place}", step_word(step));
                (command, request_id, RetryStep { request_id, operator, reason, step, line }.into())
            };
            Ok(commands.into_iter().map(message).collect())
        }
        Act::Skip { step, settled_by } => {
            let failed = failed(saga).into_iter().find(|command| command.line.is_none());
            let step = step.or(failed.map(|command| command.step));
            let step = step.ok_or("no payment step failed; only those can be skipped (--step names one)")?;
            let settled_by = settled_by.clone();
            let command = format!("skip --step {} --settled-by REFERENCE", step_word(step));
            one(&command, SkipStep { request_id, operator, reason, step, line: None, settled_by }.into())
        }
    }
}

/// The commands of a step that are under way; at least one, so that the saga itself can refuse it.
fn chosen(saga: &Saga, step: StepName, line: Option<LineNumber>) -> Vec<CommandRef> {
    if line.is_some() {
        return vec![CommandRef { step, line }];
    }
    let mut awaited: Vec<_> = saga.awaited().into_iter().filter(|command| command.step == step).collect();
    if awaited.is_empty() {
        awaited.push(CommandRef { step, line: None });
    }
    awaited
}

fn failed(saga: &Saga) -> Vec<CommandRef> {
    let is_failed = |command: &CommandRef| match command.line {
        Some(line) => saga.line(line).is_some_and(|line| line.failed.is_some()),
        None => saga.payment.as_ref().is_some_and(|payment| payment.failed.is_some()),
    };
    saga.awaited().into_iter().filter(is_failed).collect()
}

/// What became of one input.
#[derive(Debug, Serialize)]
struct Answered {
    order_id: OrderId,
    request_id: RequestId,
    command: String,
    /// `done`, `refused`, `unanswered`; in a dry run `would_be_done`, `would_be_refused`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

#[derive(Serialize)]
struct Steered {
    dry_run: bool,
    outcomes: BTreeMap<&'static str, u64>,
    requests: Vec<Answered>,
}

pub(crate) async fn run(
    servers: &Servers,
    act: Act,
    options: &Steer,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let operator = operator(options.write.operator.as_ref())?;
    let asking = Asking { operator: &operator, reason: &options.write.reason };
    let mut asked = Vec::new();
    for present in meant(servers, options).await? {
        let messages = match messages(&act, &present.saga, &asking) {
            Ok(messages) => messages,
            Err(why) if options.order.is_some() => return Err(Failure::found(format!("refused: {why}"))),
            Err(_nothing_to_do) => continue,
        };
        for (command, request_id, message) in messages {
            let refused_now = refusal(&present.saga, &message, wall_clock());
            let (order_id, state) = (present.order_id, present.saga.state.as_str());
            asked.push(Asked { order_id, state, request_id, command, message, refused_now });
        }
    }
    if asked.is_empty() {
        return Err(Failure::found("no saga is meant by that: nothing was sent"));
    }
    if options.write.dry_run {
        return say(&asked, would_be(&asked), true, terminal);
    }
    confirm(&asked, options.write.yes, terminal)?;
    let answers = publish(servers, &asked, options.rate).await?;
    say(&asked, answers, false, terminal)
}

/// Who does this.
pub(crate) fn operator(named: Option<&String>) -> Result<String, Failure> {
    let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
    named.cloned().or_else(user).ok_or_else(|| {
        Failure::usage("who does this? name yourself with --operator, or set SAGACTL_OPERATOR")
    })
}

async fn meant(servers: &Servers, options: &Steer) -> Result<Vec<PresentSaga>, Failure> {
    if let Some(order_id) = options.order {
        let (present, _, _) = show::find(servers, order_id).await?;
        return Ok(vec![present]);
    }
    let mut found = Vec::new();
    list::each(servers, &Filter(options.filter.clone()), |present| found.push(present)).await?;
    found.sort_by_key(|present| (present.saga.ordered_at, present.order_id));
    Ok(found)
}

fn confirm(asked: &[Asked], yes: bool, terminal: &Terminal) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !Terminal::can_ask() {
        return Err(Failure::usage(format!(
            "this sends {} commands: say --yes, or look first with --dry-run",
            asked.len()
        )));
    }
    print_plan(asked, terminal);
    if Terminal::ask(&format!("Send {}?", asked.len())) {
        Ok(())
    } else {
        Err(Failure::found("nothing was sent"))
    }
}

fn print_plan(asked: &[Asked], terminal: &Terminal) {
    const SHOWN: usize = 20;
    let rows: Vec<Vec<String>> = asked
        .iter()
        .take(SHOWN)
        .map(|asked| {
            let verdict =
                asked.refused_now.map_or("ok".to_owned(), |code| format!("would be refused: {code}"));
            vec![asked.order_id.to_string(), asked.state.to_owned(), asked.command.clone(), verdict]
        })
        .collect();
    terminal.table(&["ORDER", "STATE", "COMMAND", "AS THINGS STAND"], &rows);
    if asked.len() > SHOWN {
        terminal.line(format!("and {} more", asked.len() - SHOWN));
    }
}

type Answers = HashMap<RequestId, (RequestOutcome, Option<String>)>;

fn would_be(asked: &[Asked]) -> Answers {
    let verdict = |asked: &Asked| match asked.refused_now {
        None => (asked.request_id, (RequestOutcome::Done, None)),
        Some(code) => (asked.request_id, (RequestOutcome::Refused, Some(code.to_owned()))),
    };
    asked.iter().map(verdict).collect()
}

/// Publishes at most `rate` inputs a second and gathers what the sagas say. Once published they are in the log, whether
/// answered or not.
async fn publish(servers: &Servers, asked: &[Asked], rate: u32) -> Result<Answers, Failure> {
    let publisher = servers.publisher().await?;
    let reader = servers.log()?;
    let mut answers = AnswerReader::new(reader)?;
    let portion = usize::try_from(rate.div_ceil(10)).unwrap_or(1);
    for inputs in asked.chunks(portion) {
        let began = Instant::now();
        let outputs: Vec<Output> = inputs.iter().map(record).collect();
        publisher.publish(&outputs).await.map_err(|error| {
            Failure::away(format!(
                "{error}; what was sent before is in the log (sagactl show says what came of it)"
            ))
        })?;
        if asked.len() > portion {
            tokio::time::sleep(Duration::from_millis(100).saturating_sub(began.elapsed())).await;
        }
    }
    let wanted: HashSet<RequestId> = asked.iter().map(|asked| asked.request_id).collect();
    tokio::task::spawn_blocking(move || answers.wait(&wanted))
        .await
        .map_err(|error| Failure::away(format!("the answers could not be read: {error}")))?
}

fn record(asked: &Asked) -> Output {
    let envelope: Envelope<OrderSagaMessage> = Envelope {
        message_id: MessageId(asked.request_id.uuid()),
        order_id: Some(asked.order_id),
        causation_id: None,
        occurred_at: wall_clock(),
        message: asked.message.clone(),
    };
    Output::new(Topic::OrderSaga, asked.order_id.to_string(), &envelope)
}

/// Reads `order-events` from where it ended when this was made.
struct AnswerReader {
    reader: LogReader,
    ends: Vec<(i32, i64)>,
}

impl AnswerReader {
    fn new(reader: LogReader) -> Result<Self, Failure> {
        let topic = Topic::OrderEvents.name();
        let mut ends = Vec::new();
        for partition in 0..reader.partitions(topic)? {
            ends.push((partition, reader.bounds(topic, partition)?.1));
        }
        Ok(Self { reader, ends })
    }

    fn wait(&mut self, wanted: &HashSet<RequestId>) -> Result<Answers, Failure> {
        let mut answers = Answers::new();
        let mut deadline = Instant::now() + ANSWER;
        while answers.len() < wanted.len() && Instant::now() < deadline {
            let known = answers.len();
            for (partition, from) in &mut self.ends {
                let topic = Topic::OrderEvents.name();
                let (_, to) = self.reader.bounds(topic, *partition)?;
                self.reader.read(topic, *partition, *from, to, |record| {
                    let Ok(event) = Envelope::<OrderEvent>::decode(&record.value) else { return };
                    if let OrderEvent::OrderChanged(changed) = event.message
                        && let Some(request) = changed.request
                        && wanted.contains(&request.id)
                    {
                        answers.insert(request.id, (request.outcome, request.code));
                    }
                })?;
                *from = to;
            }
            if answers.len() > known {
                deadline = Instant::now() + ANSWER;
            } else {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(answers)
    }
}

fn say(
    asked: &[Asked],
    mut answers: Answers,
    dry_run: bool,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let requests: Vec<Answered> = asked
        .iter()
        .map(|asked| {
            let answer = answers.remove(&asked.request_id);
            let outcome = match (&answer, dry_run) {
                (Some((RequestOutcome::Done, _)), false) => "done",
                (Some((RequestOutcome::Refused, _)), false) => "refused",
                (Some((RequestOutcome::Done, _)), true) => "would_be_done",
                (Some((RequestOutcome::Refused, _)), true) => "would_be_refused",
                (Some((RequestOutcome::Pending, _)) | None, _) => "unanswered",
            };
            Answered {
                order_id: asked.order_id,
                request_id: asked.request_id,
                command: asked.command.clone(),
                outcome,
                code: answer.and_then(|(_, code)| code),
            }
        })
        .collect();
    let mut outcomes: BTreeMap<&'static str, u64> = BTreeMap::new();
    for request in &requests {
        *outcomes.entry(request.outcome).or_default() += 1;
    }
    let steered = Steered { dry_run, outcomes, requests };
    if terminal.json {
        terminal.json(&steered)?;
    } else if dry_run {
        print_plan(asked, terminal);
        terminal.line("dry run: nothing was sent");
    } else {
        print(&steered, terminal);
    }
    let count = |outcome: &str| steered.outcomes.get(outcome).copied().unwrap_or_default();
    if count("unanswered") > 0 {
        return Err(Failure::away(format!(
            "{} of {} have no answer after {} s: they are in the log, and are applied once the order-orchestrator comes to them",
            count("unanswered"),
            steered.requests.len(),
            ANSWER.as_secs()
        )));
    }
    Ok(Verdict::found_if(count("refused") + count("would_be_refused") > 0))
}

fn print(steered: &Steered, terminal: &Terminal) {
    for request in steered.requests.iter().take(50) {
        let code = request.code.as_ref().map(|code| format!(": {code}")).unwrap_or_default();
        let tone = if request.outcome == "done" { Tone::Good } else { Tone::Bad };
        let outcome = terminal.toned(tone, &format!("{}{code}", request.outcome));
        terminal.line(format!("{}  {}  {outcome}", request.order_id, request.command));
    }
    if steered.requests.len() > 1 {
        let sums: Vec<String> =
            steered.outcomes.iter().map(|(outcome, n)| format!("{n} {outcome}")).collect();
        terminal.line(sums.join(", "));
    }
}

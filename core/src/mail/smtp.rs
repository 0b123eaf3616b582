//! One connection to a mail server, and the dialogue on it, step by step (RFC 5321, by lettre's commands).
//!
//! lettre's own transport tells only of the first refusal; here each recipient's reply is kept.
//!
//! Invariants: every step has a timeout; a connection whose dialogue did not come to a known end is dropped, never used
//! again; a [`Ledger`] knows at every moment whether the final dot may have left, also when the future is dropped.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use futures::future::BoxFuture;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Auth as Login, Data, Mail, Noop, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;

use super::mime::Wire;
use super::options::{Auth, MailerOptions, Tls};
use super::stream::{self, StepError};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::time::Timestamp;

/// What a server said: its code and its text, or 0 and what went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) text: String,
}

/// What is known of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing yet.
    Open,
    /// The server takes it for them, if it takes the message.
    Willing,
    Accepted(Reply),
    /// Said by the server, for good or for now.
    Refused {
        reply: Reply,
        permanent: bool,
    },
    /// The dialogue ended before the final dot: certainly not sent.
    Failed(Reply),
    /// It ended between the final dot and its reply.
    Unknown(Reply),
}

/// What is known of a message while it is being sent, and after.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) fates: Vec<Fate>,
    /// Whether the final dot may have left.
    dot: AtomicBool,
}

impl Ledger {
    pub(super) fn new(recipients: usize) -> Self {
        Self { fates: vec![Fate::Open; recipients], dot: AtomicBool::new(false) }
    }

    pub(super) fn dot_sent(&self) -> bool {
        self.dot.load(SeqCst)
    }

    /// The dialogue has ended without a reply for those who are not settled.
    pub(super) fn broken(&mut self, text: &str) {
        let reply = Reply { code: 0, text: text.to_owned() };
        let dot = self.dot_sent();
        self.settle(|fate| match fate {
            Fate::Willing if dot => Some(Fate::Unknown(reply.clone())),
            Fate::Open | Fate::Willing => Some(Fate::Failed(reply.clone())),
            _ => None,
        });
    }

    /// The server has answered for all who are not settled.
    fn answered(&mut self, reply: &Reply, permanent: bool) {
        self.settle(|fate| match fate {
            Fate::Open | Fate::Willing => Some(Fate::Refused { reply: reply.clone(), permanent }),
            _ => None,
        });
    }

    fn settle(&mut self, change: impl Fn(&Fate) -> Option<Fate>) {
        for fate in &mut self.fates {
            if let Some(changed) = change(fate) {
                *fate = changed;
            }
        }
    }

    /// Those who are to be tried again go back to the start.
    pub(super) fn reopen(&mut self) {
        *self.dot.get_mut() = false;
        self.settle(|fate| fate.may_retry().then_some(Fate::Open));
    }
}

impl Fate {
    pub(super) fn may_retry(&self) -> bool {
        matches!(self, Self::Open | Self::Willing | Self::Failed(_) | Self::Refused { permanent: false, .. })
    }
}

/// Why a step did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said no, and the connection can be used on.
    Refused { reply: Reply, permanent: bool },
    /// The connection is gone, or of no use any more: worth another one.
    Broken(String),
    /// Trying again is useless.
    Fatal(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Fatal(error) => error,
            Self::Broken(text) => Error::unavailable(text),
            Self::Refused { reply, .. } => {
                Error::unavailable(format!("the mail server refuses: {} {}", reply.code, reply.text))
            }
        }
    }
}

/// Asked when the server has agreed to take the message for somebody, before anything of it is sent: where an outbox
/// writes down that it sends.
pub(super) trait Gate: Send + Sync {
    /// An error to send nothing.
    fn open(&self) -> BoxFuture<'_, Result<()>>;

    /// The moment after which the final dot must not be sent, as it is known now; none if there is no such moment.
    fn until(&self) -> Option<Timestamp>;
}

/// The gate of a plain send: open.
pub(super) struct Always;

impl Gate for Always {
    fn open(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn until(&self) -> Option<Timestamp> {
        None
    }
}

/// A connection that is ready for the next message.
pub(super) struct Connection {
    smtp: AsyncSmtpConnection,
    pub(super) idle_since: Timestamp,
    /// Whether a message was sent on it before: the server may have closed it since.
    pub(super) used: bool,
}

/// Connects, encrypts and logs in.
pub(super) async fn connect(options: &MailerOptions, env: &Env) -> Result<Connection, Failure> {
    let steps = Steps { options, env };
    let hello = hello_name(options);
    let tls = tls_parameters(options).map_err(Failure::Fatal)?;
    let deadline = env.now() + options.connect_timeout;
    let greeted = async {
        let tcp = stream::reach(&options.host, options.port(), env, deadline).await?;
        let stream = stream::prepare(tcp, options.tls, tls.clone()).await?;
        Ok::<_, StepError>(AsyncSmtpConnection::connect_with_transport(stream, &hello).await?)
    };
    let mut smtp = steps.run("connecting", options.connect_timeout, greeted).await.map_err(of_everybody)?;
    if let (Tls::Required, Some(tls)) = (options.tls, &tls) {
        if !smtp.can_starttls() {
            let message = "the mail server does not offer STARTTLS, and the option tls is 'required'";
            return Err(Failure::Fatal(Error::new(Code::Unsupported, message)));
        }
        let encrypting = smtp.starttls(tls.clone(), &hello);
        steps.run("STARTTLS", options.step_timeout, encrypting).await.map_err(of_everybody)?;
    }
    if !options.user.is_empty() {
        login(&steps, &mut smtp).await?;
    }
    Ok(Connection { smtp, idle_since: env.now(), used: false })
}

/// What a refusal before the login means: it is of whoever comes, and one for good is not asked for again.
fn of_everybody(failure: Failure) -> Failure {
    match failure {
        Failure::Refused { permanent: true, .. } => Failure::Fatal(failure.into_error()),
        other => other,
    }
}

/// Not by lettre's own loop, which says goodbye to a server that refuses, and waits for its reply.
async fn login(steps: &Steps<'_>, smtp: &mut AsyncSmtpConnection) -> Result<(), Failure> {
    let options = steps.options;
    let wanted: &[Mechanism] = match options.auth {
        Auth::Auto => &[Mechanism::Plain, Mechanism::Login],
        Auth::Plain => &[Mechanism::Plain],
        Auth::Login => &[Mechanism::Login],
        Auth::Xoauth2 => &[Mechanism::Xoauth2],
    };
    let Some(mechanism) = smtp.server_info().get_auth_mechanism(wanted) else {
        let names: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        let message = format!("the mail server does not offer the login {}; see the option auth", names.join(" or "));
        return Err(Failure::Fatal(Error::new(Code::Unsupported, message)));
    };
    let credentials = || Credentials::new(options.user.clone(), options.password.clone());
    let unauthorized = |text: &str| {
        Failure::Fatal(Error::new(
            Code::Unauthorized,
            format!("the mail server does not accept the login ({text}): check user, password and auth"),
        ))
    };
    let mut command = Login::new(mechanism, credentials(), None);
    for _ in 0..=CHALLENGES {
        // XOAUTH2 refuses by a challenge, which says why.
        let Ok(next) = command else { break };
        match steps.run("the login", options.step_timeout, smtp.command(next)).await {
            Ok(reply) if u16::from(reply.code()) == 235 => return Ok(()),
            Ok(reply) if u16::from(reply.code()) == 334 => {
                command = Login::new_from_response(mechanism, credentials(), &reply);
            }
            Ok(reply) => return Err(unauthorized(&reply.code().to_string())),
            Err(Failure::Refused { reply, permanent: true }) => {
                return Err(unauthorized(&format!("{} {}", reply.code, reply.text)));
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(unauthorized("it asks for more"))
}

/// How often LOGIN asks: for the user and for the password.
const CHALLENGES: usize = 2;

impl Connection {
    /// Whether the server still answers. Some close what is idle for a while, and a message would be lost on that.
    pub(super) async fn answers(&mut self, within: Duration, options: &MailerOptions, env: &Env) -> bool {
        let steps = Steps { options, env };
        steps.run("NOOP", within, self.smtp.command(Noop)).await.is_ok()
    }

    /// Sends the message to all whose fate is open, and writes down what becomes of it. The connection can be used
    /// again if it is returned.
    ///
    /// # Errors
    /// The gate's, and what no other connection to this server would change; then nothing was sent.
    pub(super) async fn deliver(
        mut self,
        wire: &Wire,
        ledger: &mut Ledger,
        gate: &dyn Gate,
        options: &MailerOptions,
        env: &Env,
    ) -> Result<Option<Self>> {
        let steps = Steps { options, env };
        let mut clean = match self.dialogue(wire, ledger, gate, &steps).await {
            Ok(taken) => taken,
            Err(Failure::Refused { reply, permanent }) => {
                ledger.answered(&reply, permanent);
                false
            }
            Err(Failure::Broken(text)) => {
                ledger.broken(&text);
                return Ok(None);
            }
            Err(Failure::Fatal(error)) => return Err(error),
        };
        // Not after a message that was taken: that ends by itself (RFC 5321, 4.1.1.4), and to wait for one more reply
        // would leave it in doubt for longer.
        if !clean {
            let limit = options.step_timeout.min(ASIDE);
            clean = steps.run("RSET", limit, self.smtp.command(Rset)).await.is_ok();
        }
        self.idle_since = env.now();
        self.used = true;
        Ok(clean.then_some(self))
    }

    /// Whether the server has taken the message; if not, it still has a sender, and perhaps recipients.
    async fn dialogue(
        &mut self,
        wire: &Wire,
        ledger: &mut Ledger,
        gate: &dyn Gate,
        steps: &Steps<'_>,
    ) -> Result<bool, Failure> {
        let step = steps.options.step_timeout;
        let parameters = self.parameters(wire).map_err(Failure::Fatal)?;
        let from = Mail::new(Some(wire.from.lettre_address().clone()), parameters);
        done("MAIL FROM", steps.run("MAIL FROM", step, self.smtp.command(from)).await?)?;
        for (recipient, fate) in wire.recipients.iter().zip(&mut ledger.fates) {
            if *fate != Fate::Open {
                continue;
            }
            let to = Rcpt::new(recipient.lettre_address().clone(), Vec::new());
            let answer = steps.run("RCPT TO", step, self.smtp.command(to)).await;
            *fate = match answer.and_then(|reply| done("RCPT TO", reply)) {
                Ok(_) => Fate::Willing,
                Err(Failure::Refused { reply, permanent }) => Fate::Refused { reply, permanent },
                Err(failure) => return Err(failure),
            };
        }
        if !ledger.fates.contains(&Fate::Willing) {
            return Ok(false);
        }
        failpoints::at(Point::MailEnvelope);
        gate.open().await.map_err(Failure::Fatal)?;
        let ready = steps.run("DATA", step, self.smtp.command(Data)).await?;
        if u16::from(ready.code()) != 354 {
            return Err(Failure::Broken(format!("the mail server answered DATA with {}", ready.code())));
        }
        failpoints::at(Point::MailData);
        let reply = done("the content", self.content(wire, &ledger.dot, gate, steps).await?)?;
        failpoints::at(Point::MailTaken);
        let reply = steps.reply(&reply);
        ledger.settle(|fate| (*fate == Fate::Willing).then(|| Fate::Accepted(reply.clone())));
        Ok(true)
    }

    /// The content, the final dot, and the server's reply. Past the gate's moment the dot is not sent any more.
    async fn content(
        &mut self,
        wire: &Wire,
        dot: &AtomicBool,
        gate: &dyn Gate,
        steps: &Steps<'_>,
    ) -> Result<Response, Failure> {
        // The dot itself comes with a line end in front.
        let bytes = wire.bytes.strip_suffix(b"\r\n").unwrap_or(&wire.bytes);
        let mut chunks = bytes.chunks(CHUNK);
        let parts = std::iter::from_fn(|| {
            let next = chunks.next();
            if next.is_none() {
                dot.store(true, SeqCst);
                failpoints::at(Point::MailDot);
            }
            next
        });
        let sending = steps.run("the content", steps.options.step_timeout, self.smtp.message_iter(parts));
        // A renewal moves the moment.
        let too_late = async {
            while let Some(until) = gate.until() {
                if steps.env.now() >= until {
                    return;
                }
                steps.env.sleep_until(until).await;
            }
            std::future::pending().await
        };
        let mut sending = std::pin::pin!(sending);
        tokio::select! {
            biased;
            () = too_late => {}
            reply = &mut sending => return reply,
        }
        if dot.load(SeqCst) {
            return sending.await;
        }
        Err(Failure::Broken("the session that sends could not be renewed in time, so the message was not sent".into()))
    }

    fn parameters(&self, wire: &Wire) -> Result<Vec<MailParameter>> {
        if !wire.utf8 {
            return Ok(Vec::new());
        }
        let server = self.smtp.server_info();
        if !server.supports_feature(Extension::SmtpUtfEight) || !server.supports_feature(Extension::EightBitMime) {
            let message = "an address has characters beyond ASCII before its '@', and the mail server does not know \
                           SMTPUTF8";
            return Err(Error::new(Code::Unsupported, message));
        }
        Ok(vec![MailParameter::SmtpUtfEight, MailParameter::Body(MailBodyParameter::EightBitMime)])
    }

    /// Says goodbye, as far as the server listens.
    pub(super) async fn quit(mut self, options: &MailerOptions, env: &Env) {
        let steps = Steps { options, env };
        let limit = options.step_timeout.min(ASIDE);
        let _ = steps.run("QUIT", limit, self.smtp.command(Quit)).await;
    }
}

/// What a server has done, and not only understood so far: lettre takes 3yz for success, too.
fn done(what: &str, response: Response) -> Result<Response, Failure> {
    match u16::from(response.code()) {
        200..300 => Ok(response),
        code => Err(Failure::Broken(format!("the mail server answered {what} with {code}"))),
    }
}

/// Runs steps, each within its time, and tells their errors in our terms.
struct Steps<'a> {
    options: &'a MailerOptions,
    env: &'a Env,
}

impl Steps<'_> {
    async fn run<T, E: Into<StepError>>(
        &self,
        what: &str,
        limit: Duration,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            done = step => done.map_err(|error| self.failure(what, &error.into())),
            () = self.env.sleep(limit) => Err(Failure::Broken(format!(
                "the mail server did not answer within {} s: {what}",
                limit.as_secs_f64()
            ))),
        }
    }

    fn failure(&self, what: &str, error: &StepError) -> Failure {
        let text = self.options.scrubbed(&error.to_string());
        if let StepError::Smtp(error) = error
            && let Some(code) = error.status()
        {
            let code = u16::from(code);
            // lettre puts "transient error (450): " in front of what the server said.
            let text = text.split_once("): ").map_or("", |(_, said)| said).to_owned();
            if code == 421 {
                return Failure::Broken(format!("the mail server closes the connection: {code} {text}"));
            }
            return Failure::Refused { reply: Reply { code, text }, permanent: error.is_permanent() };
        }
        if let Some(start) = text.find("invalid peer certificate") {
            let reason = &text[start..];
            return Failure::Fatal(Error::new(
                Code::Unauthorized,
                format!("the mail server's certificate is not trusted ({reason}): check the options host and ca"),
            ));
        }
        Failure::Broken(format!("the connection to the mail server failed ({what}): {text}"))
    }

    fn reply(&self, response: &Response) -> Reply {
        let text = response.message().collect::<Vec<_>>().join(" ");
        Reply { code: response.code().into(), text: self.options.scrubbed(&text) }
    }
}

fn tls_parameters(options: &MailerOptions) -> Result<Option<TlsParameters>> {
    if options.tls == Tls::None {
        return Ok(None);
    }
    let mut builder = TlsParameters::builder(options.host.clone());
    if let Some(path) = &options.ca {
        let refuse = |why: &str| Error::invalid(format!("ca: '{}' {why}", path.display()));
        let pem = std::fs::read(path).map_err(|error| refuse(&format!("cannot be read: {error}")))?;
        if !pem.windows(PEM.len()).any(|window| window == PEM) {
            return Err(refuse("has no certificate in PEM"));
        }
        let certificate = Certificate::from_pem(&pem).map_err(|_| refuse("is not a PEM file of certificates"))?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
    }
    let built = builder.build_rustls();
    built.map(Some).map_err(|error| Error::invalid(format!("ca: the certificates cannot be used: {error}")))
}

/// The name of this host where it is one that a server can look up, else the loopback address (RFC 5321, 4.1.4).
fn hello_name(options: &MailerOptions) -> ClientId {
    let own = || {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        (name.contains('.') && name.chars().all(good)).then_some(name)
    };
    options.hello.clone().or_else(own).map_or_else(ClientId::default, ClientId::Domain)
}

/// What each certificate in a PEM file begins with.
const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";
/// How much of a message is handed to the connection at once.
const CHUNK: usize = 64 << 10;
/// How long a server may take for what no message waits for.
const ASIDE: Duration = Duration::from_secs(2);

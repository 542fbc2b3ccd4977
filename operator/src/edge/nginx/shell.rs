//! One long conversation with a shell beside nginx: a question costs a fraction of what a new command in the container
//! does, so that nginx can be asked often. The shell ends when the conversation does.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::here::Here;
use super::image::Image;
use crate::edge::{At, Conversation, File};
use crate::error::{PortError, Remedy};

/// The longest answer, in bytes: the facts of some ten thousand servers.
const LONGEST_ANSWER: usize = 4 << 20;
/// The longest wait for one.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the last line of an answer begins with.
const END: &str = "evenkeel-end ";
/// Told apart by its environment: only bash can speak to a port by itself.
const START: &str =
    r#"if command -v bash >/dev/null 2>&1; then exec bash -c "$1"; fi; exec sh -c "$1""#;

/// For any POSIX shell.
const SCRIPT: &str = r#"
cd /etc/evenkeel || exit 1
about() {
    nginx -V 2>&1
    for f in /usr/lib/nginx/modules/*.so /usr/lib64/nginx/modules/*.so; do
        [ -f "$f" ] && echo "module $f"
    done
    read -r name </proc/sys/kernel/hostname && echo "host $name"
}
workers() {
    for f in /proc/[0-9]*/cmdline; do
        line=
        p=${f#/proc/}
        { read -r line <"$f"; } 2>/dev/null
        case $line in
        'nginx: worker process is shutting down'*) echo "old ${p%/*}" ;;
        'nginx: worker process'*) echo "new ${p%/*}" ;;
        esac
    done
}
ask() {
    if [ -n "$BASH_VERSION" ]; then
        exec 3<>/dev/tcp/127.0.0.1/PORT || return 0
        printf 'GET /digest HTTP/1.1\r\nHost: evenkeel\r\n\r\nGET /status HTTP/1.0\r\n\r\n' >&3
        while read -r -t 2 line <&3; do echo "$line"; done
        exec 3>&-
    elif command -v curl >/dev/null 2>&1; then
        curl -s -m 2 http://127.0.0.1:PORT/digest http://127.0.0.1:PORT/status
    else
        wget -q -T 2 -O - http://127.0.0.1:PORT/digest
        wget -q -T 2 -O - http://127.0.0.1:PORT/status
    fi
}
while read -r word size; do
    r=0
    case $word in
    about) about ;;
    state) workers; ask ;;
    facts) grep '^#= ' nginx.conf ;;
    take) head -c "$size" >candidate.conf; r=$? ;;
    test) nginx -t -q -g 'daemon off;' -c /etc/evenkeel/candidate.conf 2>&1; r=$? ;;
    swap) cp nginx.conf previous.conf && mv -f candidate.conf nginx.conf && kill -HUP 1; r=$? ;;
    back) mv -f previous.conf nginx.conf; r=$? ;;
    tidy)
        for f in certificates/*; do
            grep -q -F "$f" nginx.conf || rm -f "$f"
        done ;;
    esac
    echo "evenkeel-end $r"
done
"#;

/// What the shell is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// What nginx this is.
    About,
    /// Which configuration is in force, and which workers there are.
    State,
    /// What the configuration on disk says about itself.
    Facts,
    /// Whether nginx takes the candidate, which [`Shell::give`] gave.
    Test,
    /// To put the candidate in the place of the configuration and to tell nginx.
    Swap,
    /// To undo that, for nginx has not taken it.
    Back,
    /// To remove certificates that the configuration does not name.
    Tidy,
}

impl Question {
    const fn word(self) -> &'static str {
        match self {
            Self::About => "about\n",
            Self::State => "state\n",
            Self::Facts => "facts\n",
            Self::Test => "test\n",
            Self::Swap => "swap\n",
            Self::Back => "back\n",
            Self::Tidy => "tidy\n",
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Zero when it was done.
    pub(super) code: i32,
    /// What was said.
    pub(super) text: String,
}

/// Who does what is asked: a shell in nginx's container, or the agent itself.
pub(super) enum Shell {
    Inside(Inside),
    Here(Here),
}

/// The shell in a container.
pub(super) struct Inside(Conversation);

impl Shell {
    pub(super) async fn open(at: &At) -> Result<Self, PortError> {
        let container = match at {
            At::Container(container) => container,
            At::Machine(machine) => return Here::open(machine.clone()).await.map(Self::Here),
        };
        let script = SCRIPT.replace("PORT", &super::render::ASK_PORT.to_string());
        let conversation = container.converse(&["sh", "-c", START, "evenkeel", &script]).await?;
        Ok(Self::Inside(Inside(conversation)))
    }

    /// What the renderer must know of this nginx.
    pub(super) async fn image(&mut self) -> Result<Image, PortError> {
        let inside = match self {
            Self::Here(here) => return Ok(here.image().await),
            Self::Inside(inside) => inside,
        };
        let about = inside.within(Question::About.word().as_bytes()).await?.text;
        Image::parse(&about).ok_or_else(|| {
            let why = "its image has no nginx that tells its version";
            PortError::new("ask nginx in its container", Remedy::Hold, why)
        })
    }

    /// What it does now. An error where it does not say.
    pub(super) async fn state(&mut self) -> Result<State, PortError> {
        let state = match self {
            Self::Here(here) => here.state().await?,
            Self::Inside(inside) => {
                State::parse(&inside.within(Question::State.word().as_bytes()).await?.text)
            }
        };
        if state.digest.is_some() {
            return Ok(state);
        }
        Err(PortError::new("ask nginx what is in force", Remedy::Retry, "it does not answer"))
    }

    /// Asks and waits for the answer. After an error the conversation is of no use any more.
    pub(super) async fn ask(&mut self, question: Question) -> Result<Answer, PortError> {
        let here = match self {
            Self::Inside(inside) => return inside.within(question.word().as_bytes()).await,
            Self::Here(here) => here,
        };
        let mut answer = Answer { code: 0, text: String::new() };
        match question {
            Question::About | Question::State => {}
            Question::Facts => answer.text = here.facts(),
            Question::Test => answer = here.test().await?,
            Question::Swap => answer = here.swap().await?,
            Question::Back => here.back()?,
            Question::Tidy => here.tidy(),
        }
        Ok(answer)
    }

    /// Hands over a candidate. An upload of a file costs an engine a tenth of a second, this next to nothing.
    pub(super) async fn give(&mut self, candidate: &str) -> Result<Answer, PortError> {
        match self {
            Self::Inside(inside) => {
                inside.within(format!("take {}\n{candidate}", candidate.len()).as_bytes()).await
            }
            Self::Here(here) => {
                here.give(candidate).await.map(|()| Answer { code: 0, text: String::new() })
            }
        }
    }

    /// Puts certificates where nginx reads them.
    pub(super) async fn put(&mut self, at: &At, files: &[File]) -> Result<(), PortError> {
        match (self, at) {
            (Self::Here(here), _) => here.put(files).await,
            (Self::Inside(_), At::Container(container)) => container.put(files).await,
            (Self::Inside(_), At::Machine(_)) => Ok(()),
        }
    }

    /// What was tried does not come into force. In a container it is a file that nobody reads.
    pub(super) fn abandon(&mut self) -> Result<(), PortError> {
        match self {
            Self::Here(here) => here.back(),
            Self::Inside(_) => Ok(()),
        }
    }

    /// The configuration is known to be in force.
    pub(super) fn settled(&mut self) {
        if let Self::Here(here) = self {
            here.settled();
        }
    }
}

impl Inside {
    async fn within(&mut self, sent: &[u8]) -> Result<Answer, PortError> {
        let error = |why: String| PortError::new("ask nginx in its container", Remedy::Retry, why);
        match tokio::time::timeout(PATIENCE, self.exchange(sent)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(error(why)),
            Err(_) => Err(error("no answer in time".to_owned())),
        }
    }

    async fn exchange(&mut self, sent: &[u8]) -> Result<Answer, String> {
        let Conversation { input, output } = &mut self.0;
        input.write_all(sent).await.map_err(|e| e.to_string())?;
        input.flush().await.map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        loop {
            let got = output.read_buf(&mut bytes).await.map_err(|e| e.to_string())?;
            if let Some(answer) = complete(&bytes) {
                return Ok(answer);
            }
            if got == 0 {
                return Err("the shell has ended".to_owned());
            }
            if bytes.len() > LONGEST_ANSWER {
                return Err("its answer is too long".to_owned());
            }
        }
    }
}

fn complete(bytes: &[u8]) -> Option<Answer> {
    let body = bytes.strip_suffix(b"\n")?;
    let start = body.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let last = std::str::from_utf8(body.get(start..)?).ok()?;
    let code = last.strip_prefix(END)?.parse().ok()?;
    Some(Answer { code, text: String::from_utf8_lossy(bytes.get(..start)?).into_owned() })
}

/// What nginx is doing now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    /// What the configuration in force is called.
    pub(super) digest: Option<String>,
    /// Workers that take connections.
    pub(super) workers: BTreeSet<u32>,
    /// Workers of earlier configurations that finish what they have.
    pub(super) old: BTreeSet<u32>,
    /// Requests since nginx's start, those of the agent included.
    pub(super) requests: u64,
    /// The worker that answered, under the number that it has where it runs.
    pub(super) told: Option<u32>,
}

impl State {
    /// Reads an answer: `new PID`, `old PID`, and what nginx's own pages say, with or without HTTP's headers.
    pub(super) fn parse(text: &str) -> Self {
        let mut state = Self::default();
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            match line.split_once(' ') {
                Some(("new", pid)) => state.workers.extend(pid.parse::<u32>()),
                Some(("pid", pid)) => state.told = pid.parse().ok(),
                Some(("old", pid)) => state.old.extend(pid.parse::<u32>()),
                Some(("digest", digest)) => state.digest = Some(digest.to_owned()),
                Some(("server", "accepts handled requests")) => {
                    let counts = lines.next().unwrap_or_default();
                    let requests = counts.split_whitespace().nth(2).and_then(|n| n.parse().ok());
                    state.requests = requests.unwrap_or_default();
                }
                Some(_) | None => {}
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_line() {
        assert_eq!(complete(b"a\nb"), None);
        assert_eq!(complete(b"evenkeel-end 0 is not the end\n"), None);
        assert_eq!(complete(b"a\nevenkeel-end "), None);
        let whole = complete(b"a\nb\nevenkeel-end 1\n").unwrap();
        assert_eq!((whole.code, whole.text.as_str()), (1, "a\nb\n"));
        assert_eq!(complete(b"evenkeel-end 0\n").unwrap().text, "");
    }

    #[test]
    fn the_state_is_read_with_headers_and_without() {
        let text = "new 31\nnew 32\nold 12\nHTTP/1.1 200 OK\r\nServer: nginx\r\n\r\ndigest abc\n\
            HTTP/1.1 200 OK\r\n\r\nActive connections: 3 \nserver accepts handled requests\n 7 7 19 \n\
            Reading: 0 Writing: 1 Waiting: 2 \n";
        let state = State::parse(text);
        assert_eq!(state.digest.as_deref(), Some("abc"));
        assert_eq!((state.workers, state.old), ([31, 32].into(), [12].into()));
        assert_eq!(state.requests, 19);
        assert_eq!(State::parse("garbage\nnew x\n"), State::default());
    }
}

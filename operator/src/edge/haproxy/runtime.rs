//! The long conversation with HAProxy's runtime socket.
//!
//! One command takes a fraction of a millisecond this way; a new process in the container for each takes fifty.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::site::{NO_MEANS, Site};
use crate::edge::Conversation;
use crate::error::causes;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The most commands that are sent before their answers are read, so that neither side waits for the other.
const AT_ONCE: usize = 32;
/// The longest answer, in bytes: 10 000 places are about 4 MB of counters.
const LONGEST_ANSWER: usize = 16 << 20;
/// What stands behind every answer.
const PROMPT: &[u8] = b"\n> ";

/// A conversation in which commands are answered one by one.
pub(super) struct Runtime {
    conversation: Conversation,
    heard: Vec<u8>,
}

impl Runtime {
    /// Opens a conversation; the error is for people.
    pub(super) async fn open(site: &Site) -> Result<Self, String> {
        let conversation = site.converse().await.map_err(|e| causes(&e))?;
        let mut runtime = Self { conversation, heard: Vec::new() };
        runtime.ask(&["prompt".to_owned()]).await?;
        Ok(runtime)
    }

    /// Sends commands; returns an answer for each. After an error the conversation is of no more use.
    pub(super) async fn ask(&mut self, commands: &[String]) -> Result<Vec<String>, String> {
        let mut answers = Vec::with_capacity(commands.len());
        for some in commands.chunks(AT_ONCE) {
            let exchange = async {
                let text = some.join("\n") + "\n";
                let input = &mut self.conversation.input;
                input.write_all(text.as_bytes()).await.map_err(|e| e.to_string())?;
                input.flush().await.map_err(|e| e.to_string())?;
                for _ in some {
                    answers.push(self.answer().await?);
                }
                Ok::<_, String>(())
            };
            tokio::time::timeout(ANSWER, exchange)
                .await
                .map_err(|_| "the runtime socket does not answer".to_owned())??;
        }
        Ok(answers)
    }

    async fn answer(&mut self) -> Result<String, String> {
        let mut searched = 0;
        loop {
            let from = searched;
            let rest = self.heard.get(from..).unwrap_or_default();
            if let Some(at) = rest.windows(PROMPT.len()).position(|w| w == PROMPT) {
                let text = self.heard.get(..from + at).unwrap_or_default();
                let text = String::from_utf8_lossy(text).into_owned();
                self.heard.drain(..from + at + PROMPT.len());
                return Ok(text);
            }
            searched = self.heard.len().saturating_sub(PROMPT.len());
            if self.heard.len() > LONGEST_ANSWER {
                return Err("the runtime socket's answer has no end".into());
            }
            let got = self.conversation.output.read_buf(&mut self.heard).await;
            if got.map_err(|e| e.to_string())? == 0 {
                if self.heard.starts_with(NO_MEANS.as_bytes()) {
                    return Err(
                        "the image has none of bash, socat and nc to reach HAProxy with".into()
                    );
                }
                return Err("HAProxy's runtime socket cannot be reached".into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn runtime(said: Vec<u8>, step: usize) -> (Runtime, impl Future<Output = ()>) {
        let (mut to, from) = tokio::io::duplex(step);
        let input = Box::new(tokio::io::sink());
        let runtime = Runtime {
            conversation: Conversation { input, output: Box::new(from) },
            heard: Vec::new(),
        };
        (runtime, async move {
            let _ = to.write_all(&said).await;
        })
    }

    #[tokio::test]
    async fn answers_are_told_apart_however_they_arrive() {
        let said = b"\n> one\nmore\n\n> \n> three\n\n> ";
        for step in [1, 2, 3, 7, 100] {
            let (mut runtime, feed) = runtime(said.to_vec(), step);
            let commands = ["a", "b", "c", "d"].map(String::from);
            let ((), answers) = tokio::join!(feed, runtime.ask(&commands));
            assert_eq!(answers.unwrap(), ["", "one\nmore\n", "", "three\n"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_an_end_are_errors() {
        let (mut ended, feed) = runtime(b"no-means\n".to_vec(), 100);
        feed.await;
        assert!(ended.ask(&["x".into()]).await.unwrap_err().contains("bash"));
        let (_to, from) = tokio::io::duplex(10);
        let input = Box::new(tokio::io::sink());
        let conversation = Conversation { input, output: Box::new(from) };
        let mut silent = Runtime { conversation, heard: Vec::new() };
        assert!(silent.ask(&["x".into()]).await.unwrap_err().contains("does not answer"));
    }

    proptest! {
        #[test]
        fn chance_bytes_are_heard_without_harm(said in proptest::collection::vec(any::<u8>(), 0..200), step in 1..50_usize) {
            let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            rt.block_on(async {
                let (mut runtime, feed) = runtime(said, step);
                let asked = async { let _ = runtime.ask(&["a".to_owned(), "b".to_owned()]).await; };
                tokio::join!(feed, asked);
            });
        }
    }
}

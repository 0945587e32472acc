//! The view that `top` shows, which keys change. Where there is no terminal, each look is printed.

use std::io;

use crossterm::event::KeyCode;

use crate::say::say;
use crate::screen::Screen;
use crate::talk::Order;
use crate::watch::{Look, SHOWN};

/// A view of the last look.
pub(crate) struct View {
    title: String,
    screen: Option<Screen>,
    last: Option<Look>,
    keys: Keys,
}

/// What keys have set.
#[derive(Debug, Default)]
struct Keys {
    order: Order,
    /// Whether the last look stays.
    is_paused: bool,
    /// What the addresses of talkers have in them.
    wanted: String,
    /// Whether that is being written.
    is_writing: bool,
    has_ended: bool,
}

impl Keys {
    fn press(&mut self, key: KeyCode) {
        match (self.is_writing, key) {
            (true, KeyCode::Enter) => self.is_writing = false,
            (true, KeyCode::Esc) => {
                self.is_writing = false;
                self.wanted.clear();
            }
            (true, KeyCode::Backspace) => drop(self.wanted.pop()),
            (true, KeyCode::Char(letter)) => self.wanted.push(letter),
            (false, KeyCode::Char('q' | 'Q')) => self.has_ended = true,
            (false, KeyCode::Char('s' | 'S')) => {
                self.order = match self.order {
                    Order::Bytes => Order::Packets,
                    Order::Packets => Order::Bytes,
                };
            }
            (false, KeyCode::Char('p' | 'P')) => self.is_paused = !self.is_paused,
            (false, KeyCode::Char('f' | 'F')) => {
                self.is_writing = true;
                self.wanted.clear();
            }
            _ => {}
        }
    }

    /// The line that says what keys do, and have done.
    fn line(&self) -> String {
        if self.is_writing {
            return format!("talkers with: {}_  (Enter, or Esc for all)", self.wanted);
        }
        let by = if self.order == Order::Bytes { "packets" } else { "bytes" };
        let pause = if self.is_paused { "goes on" } else { "pauses" };
        let mut line = format!("q ends, s sorts by {by}, p {pause}, f filters talkers");
        if !self.wanted.is_empty() {
            line += &format!(" (now: {})", self.wanted);
        }
        if self.is_paused {
            line += "; PAUSED";
        }
        line
    }
}

impl View {
    pub(crate) fn new(title: &str, screen: Option<Screen>) -> Self {
        Self { title: title.to_owned(), screen, last: None, keys: Keys::default() }
    }

    /// Shows a look.
    pub(crate) fn show(&mut self, look: Look) -> io::Result<()> {
        if self.screen.is_none() {
            return say!("{}\n{look}", self.title);
        }
        if !self.keys.is_paused {
            self.last = Some(look);
        }
        self.draw()
    }

    /// Does what keys say that were pressed since.
    pub(crate) fn heed(&mut self) -> io::Result<()> {
        let mut is_changed = false;
        while let Some(key) = self.screen.as_ref().and_then(Screen::key) {
            self.keys.press(key);
            is_changed = true;
        }
        if is_changed { self.draw() } else { Ok(()) }
    }

    /// Whether it was ended by a key.
    pub(crate) fn has_ended(&self) -> bool {
        self.keys.has_ended
    }

    fn draw(&mut self) -> io::Result<()> {
        let Self { title, screen: Some(screen), last: Some(look), keys } = self else {
            return Ok(());
        };
        look.talkers = look.traffic.talkers(SHOWN, keys.order, &keys.wanted);
        // Below the title: what comes last may have no room.
        match screen.has_keys() {
            true => screen.draw(&format!("{title}\n{}\n{look}", keys.line())),
            false => screen.draw(&format!("{title}\n{look}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(text: &str) -> Keys {
        let mut keys = Keys::default();
        for letter in text.chars() {
            keys.press(match letter {
                '\n' => KeyCode::Enter,
                '<' => KeyCode::Backspace,
                '!' => KeyCode::Esc,
                letter => KeyCode::Char(letter),
            });
        }
        keys
    }

    #[test]
    fn letters_are_keys_unless_something_is_written() {
        let keys = pressed("sp");
        assert!(keys.order == Order::Packets && keys.is_paused && !keys.has_ended);
        assert!(keys.line().contains("sorts by bytes") && keys.line().ends_with("PAUSED"));
        assert!(pressed("spsp").order == Order::Bytes && !pressed("spsp").is_paused);
        let keys = pressed("fqs7<8");
        assert!(keys.line().starts_with("talkers with: qs8_"), "{}", keys.line());
        let keys = pressed("fqs\ns");
        assert_eq!((&*keys.wanted, keys.order, keys.has_ended), ("qs", Order::Packets, false));
        assert!(pressed("fqs!").wanted.is_empty() && pressed("fqs\nf!q").has_ended);
    }
}

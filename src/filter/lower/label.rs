//! Everything before the network layer that moves it: VLAN tags, MPLS labels and PPPoE sessions. Also the
//! direction of a packet.

use std::rc::Rc;

use super::{INTERFACE, Layout, Lowered, PACKET_TYPE, Types, VLAN_PRESENT, VLAN_TAG, number};
use crate::FilterTarget;
use crate::ast::{Expr, Width};
use crate::error::FilterError;
use crate::link_type::LinkType;
use crate::tree::{Condition, Value};

impl Layout {
    pub(super) fn vlan(&mut self, id: Option<u16>) -> Lowered {
        let has_ether_types = [LinkType::ETHERNET, LinkType::LINUX_SLL, LinkType::LINUX_SLL2];
        if !has_ether_types.contains(&self.link) && self.wireless.is_none() {
            return Err(FilterError::whole(format!("no `vlan` for link type {}", self.link.0)));
        }
        if self.labels > 0 || !matches!(self.types, Types::Ether | Types::Beside) {
            return Err(FilterError::whole("no `vlan` behind `mpls` or `pppoes`"));
        }
        if std::mem::take(&mut self.is_beside) {
            // The kernel has removed the tag from the frame, so no offset moves.
            let is_tagged = self.is(Width::Byte, VLAN_PRESENT, 0).negated();
            return Ok(match id {
                Some(id) => is_tagged.and(self.masked(Width::Half, VLAN_TAG, id.into(), 0x0fff)),
                None => is_tagged,
            });
        }
        let is_tagged = self.is_tagged();
        let found = match id {
            Some(id) => is_tagged.and(self.masked(Width::Half, self.payload, id.into(), 0x0fff)),
            None => is_tagged,
        };
        self.go_behind_tag();
        Ok(found)
    }

    /// The next type is in the last two bytes of the tag, which is where the payload was.
    fn go_behind_tag(&mut self) {
        (self.types, self.type_at, self.told) = (Types::Ether, self.payload + 2, None);
        self.payload += 4;
    }

    /// Whether there is a tag in the frame at the position of the type.
    fn is_tagged(&self) -> Condition {
        let kinds = [0x8100, 0x88a8, 0x9100].map(|kind| self.type_is(kind));
        self.has_payload().and(Condition::Any(kinds.into_iter().collect()))
    }

    /// Matches the expression behind at most `tags` tags.
    pub(super) fn behind(mut self, tags: u32, expr: &Expr) -> Lowered {
        if tags == 0 {
            return self.expr(expr);
        }
        let is_tagged = self.is_tagged();
        let mut inner = self.clone();
        inner.go_behind_tag();
        let behind = is_tagged.clone().and(inner.behind(tags - 1, expr)?);
        Ok(behind.or(is_tagged.negated().and(self.expr(expr)?)))
    }

    pub(super) fn mpls(&mut self, label: Option<u32>) -> Lowered {
        if self.wireless.is_some() {
            return Err(FilterError::whole("no `mpls` for 802.11"));
        }
        let is_label = match self.labels {
            0 => self.link_type(0x8847)?,
            // Another label follows unless this one is the last.
            _ => self.masked(Width::Byte, self.network() - 2, 0, 1),
        };
        let found = match label {
            Some(label) => {
                is_label.and(self.masked(Width::Word, self.network(), label << 12, 0xffff_f000))
            }
            None => is_label,
        };
        self.labels += 4;
        Ok(found)
    }

    pub(super) fn pppoe(&mut self, session: Option<u16>) -> Lowered {
        let is_session = self.link_type(0x8864)?;
        let found = match session {
            Some(session) => {
                is_session.and(self.masked(Width::Word, self.network(), session.into(), 0xffff))
            }
            None => is_session,
        };
        self.type_at = self.network() + 6;
        self.payload = self.type_at + 2;
        self.labels = 0;
        (self.types, self.told) = (Types::Ppp, None);
        Ok(found)
    }

    pub(super) fn interface(&self, index: u32) -> Lowered {
        match (self.target, self.outer) {
            (FilterTarget::Socket | FilterTarget::Cooked, _) => {
                Ok(outer_is(Width::Word, INTERFACE, index))
            }
            (_, LinkType::LINUX_SLL2) => Ok(outer_is(Width::Word, 4, index)),
            (_, link) => {
                let why = format!(
                    "no `ifindex` and `ifname` for link type {}: a packet does not say its interface",
                    link.0
                );
                Err(FilterError::whole(why))
            }
        }
    }

    pub(super) fn outbound(&self) -> Lowered {
        const OUTGOING: u32 = 4;
        match (self.target, self.outer) {
            (FilterTarget::Socket | FilterTarget::Cooked, _) => {
                Ok(outer_is(Width::Byte, PACKET_TYPE, OUTGOING))
            }
            (_, LinkType::LINUX_SLL) => Ok(outer_is(Width::Half, 0, OUTGOING)),
            (_, LinkType::LINUX_SLL2) => Ok(outer_is(Width::Byte, 10, OUTGOING)),
            (_, link) => {
                let why = format!(
                    "no `inbound` and `outbound` for link type {}: a packet does not say which way it went",
                    link.0
                );
                Err(FilterError::whole(why))
            }
        }
    }
}

/// Tests a field of the packet's first header or its metadata, also from within a tunnel.
fn outer_is(width: Width, offset: u32, value: u32) -> Condition {
    Condition::equal(Rc::new(Value::At(width, offset)), number(value))
}

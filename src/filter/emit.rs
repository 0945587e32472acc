//! Turns a graph of tests into classic BPF instructions.

use std::collections::HashMap;
use std::rc::Rc;

use super::ast::{ArithOp, Width};
use super::graph::{Goal, Graph, Node};
use super::opcode as op;
use super::tree::{Compare, Test, Value};
use crate::error::FilterError;
use crate::insn::{BpfInsn, MAX_INSTRUCTIONS};

/// Cells of scratch memory (`BPF_MEMWORDS`).
const CELLS: u32 = 16;

/// Generates a program that accepts `bytes` bytes of each packet that the graph accepts.
pub(super) fn emit(graph: &Graph, bytes: u32) -> Result<Vec<BpfInsn>, FilterError> {
    let bodies = Bodies::of(graph)?;
    let lens: Vec<usize> = bodies.0.iter().map(Vec::len).collect();
    let jumps = Layout::of(graph, &lens);
    let mut program = Vec::new();
    for ((node, body), to) in graph.nodes.iter().zip(bodies.0).zip(&jumps) {
        program.extend(body);
        jump(&mut program, node, to);
    }
    let mut ends = Vec::new();
    for (goal, value) in [(Goal::Accept, bytes), (Goal::Reject, 0)] {
        if graph.leads_to(goal) {
            ends.push(BpfInsn { code: op::RET | op::K, jt: 0, jf: 0, k: value });
        }
    }
    program.extend(ends);
    match program.len() <= MAX_INSTRUCTIONS {
        true => Ok(program),
        false => Err(FilterError::whole(format!(
            "no program of {} instructions: the kernel takes {MAX_INSTRUCTIONS}",
            program.len()
        ))),
    }
}

/// The known contents of the registers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Registers {
    a: Option<Rc<Value>>,
    x: Option<Rc<Value>>,
}

/// The loads before each test.
struct Bodies(Vec<Vec<BpfInsn>>);

impl Bodies {
    fn of(graph: &Graph) -> Result<Self, FilterError> {
        let mut before: Vec<Option<Registers>> = vec![None; graph.nodes.len()];
        let mut bodies = Vec::with_capacity(graph.nodes.len());
        for (at, node) in graph.nodes.iter().enumerate() {
            let registers = before[at].take().unwrap_or_default();
            let mut body = Body { code: Vec::new(), registers, cells: 0 };
            body.prepare(&node.test)?;
            for goal in [node.yes, node.no] {
                let Goal::Node(next) = goal else { continue };
                match &mut before[next] {
                    Some(others) => {
                        // Keep only what both paths have loaded.
                        if others.a != body.registers.a {
                            others.a = None;
                        }
                        if others.x != body.registers.x {
                            others.x = None;
                        }
                    }
                    empty => *empty = Some(body.registers.clone()),
                }
            }
            bodies.push(body.code);
        }
        Ok(Self(bodies))
    }
}

struct Body {
    code: Vec<BpfInsn>,
    registers: Registers,
    /// Cells in use.
    cells: u32,
}

impl Body {
    fn push(&mut self, code: u16, k: u32) {
        self.code.push(BpfInsn { code, jt: 0, jf: 0, k });
    }

    /// Loads a test's values into the registers that its jump compares.
    fn prepare(&mut self, test: &Test) -> Result<(), FilterError> {
        if test.right.number().is_some() {
            return self.load_a(&test.left);
        }
        self.operands(&test.left, &test.right)
    }

    /// Loads the left value into A and the right one into X.
    fn operands(&mut self, left: &Rc<Value>, right: &Rc<Value>) -> Result<(), FilterError> {
        if matches!(**right, Value::HeaderLen(_)) {
            // It is loaded into X without A, and often is there already.
            self.load_a(left)?;
            return self.load_x(right);
        }
        if left.cells() > right.cells().max(CELLS / 2) {
            // The deeper value first: this costs one more instruction, but holds no cell meanwhile.
            self.load_a(left)?;
            let cell = self.cell()?;
            self.push(op::ST, cell);
            self.registers.a = None;
            self.load_a(right)?;
            self.push(op::MISC | op::TAX, 0);
            self.push(op::LD | op::MEM, cell);
            (self.registers.a, self.registers.x) = (Some(Rc::clone(left)), Some(Rc::clone(right)));
            self.cells -= 1;
            return Ok(());
        }
        let cell = self.cell()?;
        self.load_a(right)?;
        self.push(op::ST, cell);
        self.load_a(left)?;
        self.push(op::LDX | op::MEM, cell);
        self.registers.x = Some(Rc::clone(right));
        self.cells -= 1;
        Ok(())
    }

    fn cell(&mut self) -> Result<u32, FilterError> {
        if self.cells == CELLS {
            return Err(FilterError::whole(
                "arithmetic that takes no more than 16 intermediate results",
            ));
        }
        self.cells += 1;
        Ok(self.cells - 1)
    }

    fn load_a(&mut self, value: &Rc<Value>) -> Result<(), FilterError> {
        if self.registers.a.as_ref() == Some(value) {
            return Ok(());
        }
        match &**value {
            Value::Number(number) => self.push(op::LD | op::IMM, *number),
            Value::At(width, offset) => self.push(op::LD | op::ABS | size(*width), *offset),
            Value::Len => self.push(op::LD | op::LEN, 0),
            Value::HeaderLen(offset) => {
                self.push(op::LD | op::ABS | op::B, *offset);
                self.push(op::ALU | op::AND | op::K, 0xf);
                self.push(op::ALU | op::LSH | op::K, 2);
            }
            Value::Beyond(width, base, offset) => {
                self.load_x(base)?;
                self.push(op::LD | op::IND | size(*width), *offset);
            }
            Value::Negated(inner) => {
                self.load_a(inner)?;
                self.push(op::ALU | op::NEG, 0);
            }
            Value::Op(operator, left, right) => match right.number() {
                Some(number) => {
                    self.load_a(left)?;
                    self.push(op::ALU | alu(*operator) | op::K, number);
                }
                None => {
                    self.operands(left, right)?;
                    self.push(op::ALU | alu(*operator) | op::X, 0);
                }
            },
        }
        self.registers.a = Some(Rc::clone(value));
        Ok(())
    }

    fn load_x(&mut self, value: &Rc<Value>) -> Result<(), FilterError> {
        if self.registers.x.as_ref() == Some(value) {
            return Ok(());
        }
        match &**value {
            Value::HeaderLen(offset) => self.push(op::LDX | op::MSH | op::B, *offset),
            _ => {
                self.load_a(value)?;
                self.push(op::MISC | op::TAX, 0);
            }
        }
        self.registers.x = Some(Rc::clone(value));
        Ok(())
    }
}

impl Value {
    /// Number of cells that computing the value takes.
    fn cells(&self) -> u32 {
        match self {
            Self::Beyond(_, base, _) => base.cells(),
            Self::Negated(inner) => inner.cells(),
            Self::Op(_, left, right) if right.number().is_some() => left.cells(),
            Self::Op(_, left, right) => match (left.cells(), right.cells()) {
                (left, right) if left > right.max(CELLS / 2) => left.max(right + 1),
                (left, right) => right.max(left + 1),
            },
            _ => 0,
        }
    }
}

fn size(width: Width) -> u16 {
    match width {
        Width::Byte => op::B,
        Width::Half => op::H,
        Width::Word => op::W,
    }
}

fn alu(operator: ArithOp) -> u16 {
    match operator {
        ArithOp::Add => op::ADD,
        ArithOp::Sub => op::SUB,
        ArithOp::Mul => op::MUL,
        ArithOp::Div => op::DIV,
        ArithOp::Rem => op::MOD,
        ArithOp::And => op::AND,
        ArithOp::Or => op::OR,
        ArithOp::Xor => op::XOR,
        ArithOp::Shl => op::LSH,
        ArithOp::Shr => op::RSH,
    }
}

/// A test's jump, and the jumps behind it that reach further than it can.
#[derive(Debug, Default, Clone)]
struct Jump {
    jt: u8,
    jf: u8,
    /// The distance of each of these jumps.
    far: Vec<u32>,
}

/// Jumps lead forward, so the program is laid out from the end; positions are counted in instructions up to the
/// end.
struct Layout {
    /// Position of each node laid out so far.
    nodes: Vec<usize>,
    accept: usize,
    reject: usize,
    /// The last jump that leads to each goal. Nearby jumps can use it instead of one of their own.
    far: HashMap<Goal, usize>,
}

impl Layout {
    fn of(graph: &Graph, lens: &[usize]) -> Vec<Jump> {
        let reject = usize::from(graph.leads_to(Goal::Reject));
        let accept = reject + usize::from(graph.leads_to(Goal::Accept));
        let nodes = vec![0; graph.nodes.len()];
        let mut layout = Self { nodes, accept, reject, far: HashMap::new() };
        let mut behind = accept;
        let mut jumps = vec![Jump::default(); graph.nodes.len()];
        for (at, node) in graph.nodes.iter().enumerate().rev() {
            jumps[at] = layout.jump(node, behind);
            behind += jumps[at].far.len() + 1 + lens[at];
            layout.nodes[at] = behind;
        }
        jumps
    }

    fn place(&self, goal: Goal) -> usize {
        match goal {
            Goal::Node(at) => self.nodes[at],
            Goal::Accept => self.accept,
            Goal::Reject => self.reject,
        }
    }

    /// The jump of a node that has `behind` instructions behind it.
    fn jump(&mut self, node: &Node, behind: usize) -> Jump {
        // Jumps inserted behind this one move everything else further away, so that another may become too far.
        for (own_yes, own_no) in [(false, false), (true, false), (false, true)] {
            let from = behind + usize::from(own_yes) + usize::from(own_no);
            let yes = if own_yes { Some(0) } else { self.near(node.yes, from) };
            let no = if own_no { Some(0) } else { self.near(node.no, from) };
            if let (Some(jt), Some(jf)) = (yes, no) {
                let own = own_yes.then_some(node.yes).or(own_no.then_some(node.no));
                let far = own.map(|goal| self.far(goal, behind)).into_iter().collect();
                return Jump { jt, jf, far };
            }
        }
        let no = self.far(node.no, behind);
        let yes = self.far(node.yes, behind + 1);
        Jump { jt: 0, jf: 1, far: vec![yes, no] }
    }

    /// The distance a conditional jump needs to reach a goal, directly or through another jump; `None` if it is
    /// too far.
    fn near(&self, goal: Goal, from: usize) -> Option<u8> {
        let places = [Some(self.place(goal)), self.far.get(&goal).copied()];
        places.into_iter().flatten().find_map(|place| u8::try_from(from - place).ok())
    }

    /// Places a jump to a goal in front of `behind` instructions, and returns its distance.
    fn far(&mut self, goal: Goal, behind: usize) -> u32 {
        self.far.insert(goal, behind + 1);
        (behind - self.place(goal)) as u32
    }
}

fn jump(program: &mut Vec<BpfInsn>, node: &Node, jump: &Jump) {
    let compare = match node.test.compare {
        Compare::Equal => op::JEQ,
        Compare::Greater => op::JGT,
        Compare::AtLeast => op::JGE,
        Compare::Set => op::JSET,
    };
    let (source, k) = match node.test.right.number() {
        Some(number) => (op::K, number),
        None => (op::X, 0),
    };
    program.push(BpfInsn { code: op::JMP | compare | source, jt: jump.jt, jf: jump.jf, k });
    let far = |&k: &u32| BpfInsn { code: op::JMP | op::JA, jt: 0, jf: 0, k };
    program.extend(jump.far.iter().map(far));
}

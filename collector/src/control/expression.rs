//! Conditions: CEL expressions that are checked against the facts' schema when they are loaded.
//!
//! A reading that could not be told is absent from the values, so that a condition that needs it errors instead of deciding.
//! CEL's `&&`, `||`, `all` and `exists` let a known operand decide beside such an error, so a known failure is still a
//! failure. Whatever could take an absent value for an answer (`has`, optional selection, `in` over a fact's fields, comparing
//! whole objects or lists of them) is refused here, so that no condition can turn "cannot tell" into a pass. An object may only have
//! a field selected; a list of objects may be counted, indexed, joined, chosen and iterated over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, ExecutionError, Program, Value,
    common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators},
};

use super::{
    cost,
    mistake::{Compared, Mistake, With},
};

/// Bytes of an expression, at most.
const EXPRESSION_BYTES: usize = 4096;
/// Function that tells whether the reading at a path is known to be absent from the host.
const IS_ABSENT: &str = "is_absent";
/// Function that a condition calls where what it read does not decide.
const CANNOT_TELL: &str = "cannot_tell";
/// Functions of a value, written behind it and a dot.
pub(super) const METHODS: [&str; 9] =
    ["all", "contains", "endsWith", "exists", "exists_one", "filter", "map", "size", "startsWith"];
/// Functions that are written before what they take.
pub(super) const FUNCTIONS: [&str; 11] =
    ["bool", "bytes", CANNOT_TELL, "double", "dyn", "int", IS_ABSENT, "size", "string", "type", "uint"];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// An expression is not one that may judge.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// It is not CEL.
    #[error("expression is not CEL: {0}")]
    Syntax(String),
    /// It is longer than 4 KiB.
    #[error("expression is longer than {EXPRESSION_BYTES} bytes")]
    TooLong,
    /// It would run too long.
    #[error(
        "expression takes {steps} steps on lists of {} items; at most {} are allowed: iterate over one list of facts at a time",
        cost::USUAL_ITEMS,
        cost::STEPS
    )]
    TooManySteps {
        /// How many, at most.
        steps: u64,
    },
    /// It reads what no fact has.
    #[error("expression reads `{0}`, which no fact, parameter or variable has")]
    UnknownName(String),
    /// It could take an absent value for an answer.
    #[error("expression uses {0}, which could take a value that could not be told for an answer")]
    Unsound(String),
    /// It compares values of two types, which CEL answers with false.
    #[error("expression compares `{0}` with a value of another type")]
    Types(String),
}

/// What a name in an expression stands for: the shape of the values that it may have.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Yes or no.
    Bool,
    /// A whole number; times are seconds since 1970.
    Int,
    /// A text.
    Text,
    /// Values of one shape.
    List(Box<Shape>),
    /// Named fields.
    Object(BTreeMap<String, Shape>),
    /// Not checked.
    Any,
}

impl Shape {
    /// Returns whether the value at `path` under names of these shapes, such as `patch_level.pending[].package`, may be a list.
    pub fn may_be_list(schema: &BTreeMap<String, Self>, path: &str) -> bool {
        let (name, mut rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
        let Some(mut shape) = schema.get(name) else { return true };
        while !rest.is_empty() {
            shape = match (shape, rest.strip_prefix("[]"), rest.strip_prefix('.')) {
                (Self::List(item), Some(after), _) => {
                    rest = after;
                    item
                }
                (Self::Object(fields), None, Some(after)) => {
                    let (field, after) = after.split_at(after.find(['.', '[']).unwrap_or(after.len()));
                    rest = after;
                    let Some(shape) = fields.get(field) else { return true };
                    shape
                }
                _ => return true,
            };
        }
        matches!(shape, Self::List(_) | Self::Any)
    }

    /// Returns the shape of a sample value. An empty list has elements of any shape.
    pub fn of(sample: &serde_json::Value) -> Self {
        match sample {
            serde_json::Value::Bool(_) => Self::Bool,
            serde_json::Value::Number(_) => Self::Int,
            serde_json::Value::String(_) => Self::Text,
            serde_json::Value::Array(items) => Self::List(Box::new(items.first().map_or(Self::Any, Self::of))),
            serde_json::Value::Object(fields) => {
                Self::Object(fields.iter().map(|(name, value)| (name.clone(), Self::of(value))).collect())
            }
            serde_json::Value::Null => Self::Any,
        }
    }

    /// Returns whether a value of it is or holds objects, which lack fields that could not be told.
    fn has_objects(&self) -> bool {
        match self {
            Self::Object(_) => true,
            Self::List(element) => element.has_objects(),
            Self::Bool | Self::Int | Self::Text | Self::Any => false,
        }
    }

    /// Returns the shape of what is one or the other: the first, unless only the second has objects.
    fn or(self, other: Self) -> Self {
        if other.has_objects() && !self.has_objects() { other } else { self }
    }
}

/// What an expression may be used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// It decides a verdict.
    Condition,
    /// It names what is wrong, which decides nothing, so that it may ask whether a value could be told.
    Offenders,
}

/// A checked CEL expression.
pub struct Expression {
    source: String,
    program: Program,
    variables: BTreeSet<String>,
    paths: BTreeSet<String>,
    asks_absent: bool,
    mistakes: BTreeSet<Mistake>,
    compared: Vec<Compared>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({})", self.source)
    }
}

impl Expression {
    /// Returns the expression of `source`, whose names `schema` gives.
    ///
    /// # Errors
    ///
    /// When it is not CEL, reads an unknown name, compares different types, or could be unsound for its use.
    pub fn parse(source: &str, schema: &BTreeMap<String, Shape>, usage: Use) -> Result<Self, Error> {
        if source.len() > EXPRESSION_BYTES {
            return Err(Error::TooLong);
        }
        let program = ENV.compile(source).map_err(|error| Error::Syntax(error.to_string()))?;
        let mut walk = Walk {
            schema,
            usage,
            paths: BTreeSet::new(),
            variables: BTreeSet::new(),
            asks_absent: false,
            mistakes: BTreeSet::new(),
            compared: Vec::new(),
        };
        walk.shape(program.expression(), &Scope::default())?;
        let Walk { variables, paths, asks_absent, mistakes, compared, .. } = walk;
        Ok(Self { source: source.to_owned(), program, variables, paths, asks_absent, mistakes, compared })
    }

    /// Returns its text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns whether it reads the variable `name`.
    pub fn reads(&self, name: &str) -> bool {
        self.variables.contains(name)
    }

    /// Returns every field that it reads, such as `disk_encryption.volumes[].encrypted`.
    pub fn paths(&self) -> &BTreeSet<String> {
        &self.paths
    }

    /// Returns what it does that cannot be meant.
    pub(super) fn mistakes(&self) -> &BTreeSet<Mistake> {
        &self.mistakes
    }

    /// Returns the fields that it compares with texts or parameters.
    pub(super) fn compared(&self) -> &[Compared] {
        &self.compared
    }

    /// Returns whether it asks for readings that are known to be absent.
    pub fn asks_absent(&self) -> bool {
        self.asks_absent
    }

    /// Returns the steps that it takes, at most. `items` gives the length of the list at a path.
    pub fn steps(&self, items: &dyn Fn(&str) -> u64) -> u64 {
        cost::steps(self.program.expression(), items)
    }

    /// Returns its value where `variables` stand for its names. `absent` are the paths of readings that are known to be absent.
    ///
    /// # Errors
    ///
    /// The first name or operation that has no value.
    pub fn evaluate<'a>(
        &self,
        variables: impl Iterator<Item = (&'a str, Value)>,
        absent: BTreeSet<String>,
    ) -> Result<Value, Cannot> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context
            .add_function(CANNOT_TELL, |why: Arc<String>| -> Result<Value, ExecutionError> {
                Err(ExecutionError::function_error(CANNOT_TELL, why))
            })
            .expect("the standard library has no such function");
        context
            .add_function(IS_ABSENT, move |path: Arc<String>| -> Result<Value, ExecutionError> {
                Ok(Value::Bool(absent.contains(path.as_str())))
            })
            .expect("the standard library has no such function");
        for (name, value) in variables {
            context.add_variable_from_value(name, value);
        }
        self.program.execute(&context).map_err(Cannot::from)
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cannot {
    /// A field is absent.
    Absent(String),
    /// The expression itself says that it cannot tell, and why.
    Tell(String),
    /// It does not fit the values.
    Broken(String),
}

impl From<ExecutionError> for Cannot {
    fn from(error: ExecutionError) -> Self {
        match error {
            ExecutionError::NoSuchKey(name) => Self::Absent(name.to_string()),
            ExecutionError::UndeclaredReference(name) => Self::Absent(name.to_string()),
            ExecutionError::FunctionError { function, message } if function == CANNOT_TELL => Self::Tell(message),
            // The kind of error alone: the values in it are the host's, and may be large.
            ExecutionError::NoSuchOverload(error) => Self::Broken(error.to_string()),
            ExecutionError::Overflow(..) => Self::Broken("a number is out of range".to_owned()),
            ExecutionError::IndexOutOfBounds(_) => Self::Broken("a list is shorter than its index".to_owned()),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                Self::Broken("a number is divided by zero".to_owned())
            }
            _ => Self::Broken("a value has a type that the operation does not take".to_owned()),
        }
    }
}

/// Names that comprehensions bind.
#[derive(Clone, Default)]
struct Scope {
    bound: BTreeMap<String, (String, Shape)>,
}

struct Walk<'a> {
    schema: &'a BTreeMap<String, Shape>,
    usage: Use,
    paths: BTreeSet<String>,
    variables: BTreeSet<String>,
    asks_absent: bool,
    mistakes: BTreeSet<Mistake>,
    compared: Vec<Compared>,
}

impl Walk<'_> {
    /// Returns the shape of an expression's value, recording the fields that it reads.
    fn shape(&mut self, expr: &IdedExpr, scope: &Scope) -> Result<Shape, Error> {
        let (shape, path) = self.shape_and_path(expr, scope)?;
        if let Shape::Object(_) = &shape
            && self.is_of_facts(path.as_deref())
        {
            let name = path.map_or_else(|| "an object".to_owned(), |path| format!("`{path}`"));
            return Err(Error::Unsound(format!("{name} as a whole")));
        }
        if let Some(path) = path {
            self.paths.insert(path);
        }
        Ok(shape)
    }

    fn shape_and_path(&mut self, expr: &IdedExpr, scope: &Scope) -> Result<(Shape, Option<String>), Error> {
        match &expr.expr {
            Expr::Ident(name) if name.starts_with('@') => Ok((Shape::Any, None)),
            Expr::Ident(name) => {
                if let Some((path, shape)) = scope.bound.get(name) {
                    return Ok((shape.clone(), (!path.is_empty()).then(|| path.clone())));
                }
                let shape = self.schema.get(name).ok_or_else(|| Error::UnknownName(name.clone()))?;
                self.variables.insert(name.clone());
                Ok((shape.clone(), Some(name.clone())))
            }
            Expr::Select(select) => {
                if select.test && self.usage == Use::Condition {
                    return Err(Error::Unsound("has()".to_owned()));
                }
                let (operand, path) = self.shape_and_path(&select.operand, scope)?;
                let path = path.map(|path| format!("{path}.{}", select.field));
                let shape = match operand {
                    Shape::Object(mut fields) => fields
                        .remove(&select.field)
                        .ok_or_else(|| Error::UnknownName(path.clone().unwrap_or_else(|| select.field.clone())))?,
                    Shape::Any => Shape::Any,
                    _ => return Err(Error::UnknownName(path.unwrap_or_else(|| select.field.clone()))),
                };
                if select.test { Ok((Shape::Bool, None)) } else { Ok((shape, path)) }
            }
            Expr::Call(call) => Ok((self.call(call, scope)?, path_of(expr, scope))),
            Expr::Comprehension(comprehension) => Ok((self.comprehension(comprehension, scope)?, None)),
            Expr::List(list) => {
                let mut element = Shape::Any;
                for item in &list.elements {
                    element = self.shape(item, scope)?.or(element);
                }
                Ok((Shape::List(Box::new(element)), None))
            }
            Expr::Literal(literal) => Ok((
                match literal {
                    LiteralValue::Boolean(_) => Shape::Bool,
                    LiteralValue::Int(_) | LiteralValue::UInt(_) => Shape::Int,
                    LiteralValue::String(_) => Shape::Text,
                    LiteralValue::Bytes(_) | LiteralValue::Double(_) | LiteralValue::Null => Shape::Any,
                },
                None,
            )),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.shape(&entry.key, scope)?;
                        // What a table holds has no shape any more.
                        let value = self.shape(&entry.value, scope)?;
                        self.refuse_objects(&value, &entry.value, "a table that holds objects", scope)?;
                    }
                }
                Ok((Shape::Any, None))
            }
            Expr::Struct(_) | Expr::Unspecified => Err(Error::Unsound("a message".to_owned())),
        }
    }

    fn call(&mut self, call: &cel::common::ast::CallExpr, scope: &Scope) -> Result<Shape, Error> {
        let name = call.func_name.as_str();
        if matches!(name, operators::OPT_SELECT | operators::OPT_INDEX) {
            return Err(Error::Unsound("optional selection".to_owned()));
        }
        if name == IS_ABSENT {
            return self.is_absent(call);
        }
        let mut shapes = Vec::with_capacity(call.args.len() + 1);
        for operand in call.target.as_deref().into_iter().chain(&call.args) {
            let shape = self.shape(operand, scope)?;
            if !matches!(name, "size" | operators::INDEX | operators::ADD | operators::CONDITIONAL) {
                self.refuse_objects(&shape, operand, &format!("{} on objects", spoken(name)), scope)?;
            }
            shapes.push(shape);
        }
        self.note(call, &shapes, scope);
        if let [left, right] = shapes.as_slice()
            && matches!(name, operators::EQUALS | operators::NOT_EQUALS)
            && !comparable(left, right)
        {
            return Err(Error::Types(describe(call)));
        }
        if let [left, Shape::List(right)] = shapes.as_slice()
            && name == operators::IN
            && !comparable(left, right)
        {
            return Err(Error::Types(describe(call)));
        }
        Ok(match name {
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::IN
            | "startsWith"
            | "endsWith"
            | "contains" => Shape::Bool,
            "size" => Shape::Int,
            "string" => Shape::Text,
            operators::ADD | operators::SUBSTRACT => shapes.into_iter().reduce(Shape::or).unwrap_or(Shape::Any),
            operators::INDEX => match shapes.into_iter().next() {
                Some(Shape::List(element)) => *element,
                _ => Shape::Any,
            },
            operators::CONDITIONAL => shapes.into_iter().skip(1).reduce(Shape::or).unwrap_or(Shape::Any),
            _ => Shape::Any,
        })
    }

    /// Takes note of what a call does that cannot be meant, and of what it compares.
    fn note(&mut self, call: &cel::common::ast::CallExpr, shapes: &[Shape], scope: &Scope) {
        let name = call.func_name.as_str();
        let path = |expr: &IdedExpr| path_of(expr, scope);
        match (name, call.args.as_slice()) {
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => {
                for (field, other) in [(left, right), (right, left)] {
                    self.compared.extend(path(field).and_then(|path| Compared::of(path, With::of(other, scope)?)));
                }
            }
            (operators::IN, [left, right]) => {
                self.compared.extend(path(left).and_then(|path| Compared::of(path, With::of(right, scope)?)));
                let element = path(right).map(|path| format!("{path}[]"));
                self.compared.extend(element.and_then(|path| Compared::of(path, With::of(left, scope)?)));
            }
            (
                operators::GREATER | operators::GREATER_EQUALS | operators::LESS | operators::LESS_EQUALS,
                [left, right],
            ) if matches!(shapes, [Shape::Text, Shape::Text]) => {
                let of = path(left).or_else(|| path(right)).unwrap_or_else(|| "a text".to_owned());
                self.mistakes.insert(Mistake::Order(of));
            }
            _ => {}
        }
        let known: &[&str] = if call.target.is_some() { &METHODS } else { &FUNCTIONS };
        // Operators are no words.
        if name.starts_with(|c: char| c.is_ascii_alphabetic()) && !known.contains(&name) && name != CANNOT_TELL {
            self.mistakes.insert(Mistake::Function(name.to_owned()));
        }
    }

    /// Returns whether a value is of facts and decides, so that what is absent of it must not be taken for an answer. `path` is where
    /// it is; parameters are all told.
    fn is_of_facts(&self, path: Option<&str>) -> bool {
        self.usage == Use::Condition && !path.is_some_and(|path| path.starts_with("param"))
    }

    /// Refuses an expression of a shape with objects.
    fn refuse_objects(&self, shape: &Shape, expr: &IdedExpr, what: &str, scope: &Scope) -> Result<(), Error> {
        if shape.has_objects() && self.is_of_facts(path_of(expr, scope).as_deref()) {
            return Err(Error::Unsound(what.to_owned()));
        }
        Ok(())
    }

    /// Checks that what is asked for is one reading of a fact: a path that does not lead through a list.
    fn is_absent(&mut self, call: &cel::common::ast::CallExpr) -> Result<Shape, Error> {
        let (None, [argument]) = (&call.target, call.args.as_slice()) else {
            return Err(Error::Unsound(format!("{IS_ABSENT}() with other than one path")));
        };
        let Expr::Literal(LiteralValue::String(path)) = &argument.expr else {
            return Err(Error::Unsound(format!("{IS_ABSENT}() with other than a path that is written out")));
        };
        let path: &str = path;
        let unknown = || Error::UnknownName(path.to_owned());
        let (name, fields) = path.split_once('.').ok_or_else(unknown)?;
        let mut shape = self.schema.get(name).ok_or_else(unknown)?;
        for field in fields.split('.') {
            let Shape::Object(fields) = shape else { return Err(unknown()) };
            shape = fields.get(field).ok_or_else(unknown)?;
        }
        self.variables.insert(name.to_owned());
        self.asks_absent = true;
        Ok(Shape::Bool)
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr, scope: &Scope) -> Result<Shape, Error> {
        let (range, path) = self.shape_and_path(&comprehension.iter_range, scope)?;
        if let Some(path) = &path {
            self.paths.insert(path.clone());
        }
        let element = match range {
            Shape::List(element) => *element,
            Shape::Any => Shape::Any,
            // Iterating over the fields of an object would skip those that could not be told.
            _ => return Err(Error::Unsound("iteration over what is not a list".to_owned())),
        };
        let mut inner = scope.clone();
        let element_path = path.map(|path| format!("{path}[]")).unwrap_or_default();
        inner.bound.insert(comprehension.iter_var.clone(), (element_path, element));
        inner.bound.insert(comprehension.accu_var.clone(), (String::new(), Shape::Any));
        let init = self.shape(&comprehension.accu_init, scope)?;
        self.refuse_objects(&init, &comprehension.accu_init, "a name for objects", scope)?;
        self.shape(&comprehension.loop_cond, &inner)?;
        let step = self.shape(&comprehension.loop_step, &inner)?;
        self.shape(&comprehension.result, &inner)?;
        Ok(match step {
            Shape::Bool => Shape::Bool,
            step if step.has_objects() => step,
            _ => Shape::Any,
        })
    }
}

/// Returns where the value of an expression is in facts and parameters, if it is taken from there as it is.
fn path_of(expr: &IdedExpr, scope: &Scope) -> Option<String> {
    match &expr.expr {
        Expr::Ident(name) => match scope.bound.get(name) {
            Some((path, _)) => (!path.is_empty()).then(|| path.clone()),
            None => Some(name.clone()),
        },
        Expr::Select(select) => Some(format!("{}.{}", path_of(&select.operand, scope)?, select.field)),
        Expr::Call(call) if call.func_name == operators::INDEX => {
            Some(format!("{}[]", path_of(call.args.first()?, scope)?))
        }
        _ => None,
    }
}

impl With {
    /// Returns what a field is compared with by `expr`, if that is known before it runs.
    fn of(expr: &IdedExpr, scope: &Scope) -> Option<Self> {
        let text = |expr: &IdedExpr| match &expr.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.to_string()),
            _ => None,
        };
        match &expr.expr {
            Expr::List(list) => Some(Self::Texts(list.elements.iter().filter_map(text).collect())),
            _ => match text(expr) {
                Some(text) => Some(Self::Texts(vec![text])),
                None => {
                    path_of(expr, scope)?.strip_prefix("param.").map(|name| Self::Parameter(name.replace("[]", "")))
                }
            },
        }
    }
}

/// Returns an operation as expressions write it.
fn spoken(name: &str) -> &str {
    match name {
        operators::EQUALS => "==",
        operators::NOT_EQUALS => "!=",
        operators::IN => "in",
        name => name,
    }
}

fn comparable(left: &Shape, right: &Shape) -> bool {
    match (left, right) {
        (Shape::Any, _) | (_, Shape::Any) => true,
        (Shape::List(left), Shape::List(right)) => comparable(left, right),
        (left, right) => std::mem::discriminant(left) == std::mem::discriminant(right),
    }
}

fn describe(call: &cel::common::ast::CallExpr) -> String {
    fn path(expr: &IdedExpr) -> String {
        match &expr.expr {
            Expr::Ident(name) => name.clone(),
            Expr::Select(select) => format!("{}.{}", path(&select.operand), select.field),
            _ => "…".to_owned(),
        }
    }
    call.args.first().map(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> BTreeMap<String, Shape> {
        let sample = json!({"f": {"on": true, "name": "x", "n": 1, "list": [{"on": true, "name": "y"}]}, "param": {"names": ["x"]}});
        let Shape::Object(fields) = Shape::of(&sample) else { unreachable!() };
        fields
    }

    fn value(json: &serde_json::Value) -> Value {
        super::super::evidence::to_cel(json)
    }

    fn evaluate(source: &str, f: serde_json::Value) -> Result<Value, Cannot> {
        let expression = Expression::parse(source, &schema(), Use::Condition).unwrap();
        expression.evaluate([("f", value(&f)), ("param", value(&json!({"names": ["x"]})))].into_iter(), BTreeSet::new())
    }

    #[test]
    fn a_known_false_decides_beside_an_absent_value_and_a_known_true_does_not() {
        let list = |items| json!({"list": items});
        let all = "f.list.all(x, x.on)";
        let absent = Err(Cannot::Absent("on".to_owned()));
        for (items, expected) in [
            (json!([{"on": true}, {"on": true}]), Ok(Value::Bool(true))),
            (json!([{"on": true}, {}]), absent.clone()),
            (json!([{}, {"on": true}]), absent.clone()),
            (json!([{}, {"on": false}]), Ok(Value::Bool(false))),
            (json!([{"on": false}, {}]), Ok(Value::Bool(false))),
            (json!([{}, {}, {"on": false}, {}]), Ok(Value::Bool(false))),
        ] {
            assert_eq!(evaluate(all, list(items.clone())), expected, "{items}");
        }
        let exists = "f.list.exists(x, x.on)";
        assert_eq!(evaluate(exists, list(json!([{}, {"on": true}]))), Ok(Value::Bool(true)));
        assert_eq!(evaluate(exists, list(json!([{}, {"on": false}]))), absent);
        assert_eq!(evaluate("f.on && f.n > 1", json!({"n": 1})), Ok(Value::Bool(false)));
        assert_eq!(evaluate("f.on && f.n > 0", json!({"n": 1})), absent);
    }

    #[test]
    fn a_condition_can_say_that_it_cannot_tell() {
        let told = evaluate("f.on || cannot_tell('why')", json!({"on": false}));
        assert_eq!(told, Err(Cannot::Tell("why".to_owned())));
        assert_eq!(evaluate("f.on || cannot_tell('why')", json!({"on": true})), Ok(Value::Bool(true)));
    }

    #[test]
    fn an_unsound_or_mistyped_condition_is_refused() {
        let refused = |source: &str| Expression::parse(source, &schema(), Use::Condition).unwrap_err();
        for source in [
            "has(f.on)",
            "!has(f.on)",
            "f.?on == optional.of(true)",
            "f == {'on': true}",
            "'on' in f",
            "f.exists(k, k == 'on')",
            "f.list.all(x, x != {})",
            "size(f) > 0",
            "!({'on': true, 'name': 'x'} in f.list)",
            "f.list != [{'on': false, 'name': 'x'}]",
            "f.list[0] != {'on': false, 'name': 'x'}",
            "!('on' in f.list[0]) || f.list[0].on",
            "[f.list[0]].all(x, !('on' in x) || x.on)",
            "{'a': f.list[0]}['a'].all(k, k != 'on')",
            "{'a': f.list}['a'] != [{'on': false}]",
            "[f.list, []][0] != [{'on': false}]",
            "[[], f.list][1] != [{'on': false}]",
            "[f.list].all(l, l != [{'on': false}])",
            "([] + f.list) != [{'on': false}]",
            "(f.on ? [] : f.list) != [{'on': false}]",
            "f.list.map(x, f.list)[0] != [{'on': false}]",
            "f.list.map(x, x.on, f.list)[0][0] != {'on': false}",
            "f.list.map(x, f.list).all(l, l[0] != {'on': false})",
            "string(f.list) != ''",
        ] {
            assert!(matches!(refused(source), Error::Unsound(_) | Error::Syntax(_)), "{source}: {:?}", refused(source));
        }
        for source in ["g.on", "f.off", "f.list.all(x, x.off)", "param.other", "f.on.deep"] {
            assert!(matches!(refused(source), Error::UnknownName(_)), "{source}: {:?}", refused(source));
        }
        for source in
            ["f.on != 'yes'", "f.name == true", "f.name in [1]", "f.list.all(x, x.on != 'no')", "f.n in param.names"]
        {
            assert!(matches!(refused(source), Error::Types(_)), "{source}: {:?}", refused(source));
        }
        assert!(matches!(refused("f.on &&"), Error::Syntax(_)));
        assert_eq!(refused(&"!".repeat(5000)), Error::TooLong);
    }

    #[test]
    fn a_list_of_objects_is_counted_indexed_joined_and_iterated_over() {
        let f = json!({"on": true, "list": [{"on": true, "name": "x"}]});
        for source in [
            "f.list.size() == 1 && size(f.list) == 1",
            "f.list[0].on && f.list[0].name in param.names",
            "(f.list + f.list).all(x, x.on)",
            "[f.list].all(l, l.all(x, x.on))",
            "f.list.map(x, x.name) == ['x'] && 'x' in f.list.map(x, x.name)",
            "{'x': true}[f.list[0].name]",
        ] {
            assert_eq!(evaluate(source, f.clone()), Ok(Value::Bool(true)), "{source}");
        }
        let untold = json!({"list": [{"name": "x"}]});
        for source in ["f.list[0].on", "(f.list + f.list).all(x, x.on)", "[f.list].all(l, l.all(x, x.on))"] {
            assert_eq!(evaluate(source, untold.clone()), Err(Cannot::Absent("on".to_owned())), "{source}");
        }
    }

    #[test]
    fn an_expression_names_what_it_reads() {
        let expression =
            Expression::parse("f.list.all(x, x.on || x.name in param.names)", &schema(), Use::Condition).unwrap();
        let paths: Vec<&str> = expression.paths().iter().map(String::as_str).collect();
        assert_eq!(paths, ["f.list", "f.list[].name", "f.list[].on", "param.names"]);
        assert!(expression.reads("f") && expression.reads("param") && !expression.reads("x"));
    }
}

"""Answers to maths problems, each judged as a person would."""

import asyncio

import pytest

from firstfault.tasks.judges.math import LONGEST, MathJudge

# (the right answer, another spelling of it)
RIGHT = [
    # units, money, what is counted
    ("5", r"5\text{ cm}"),
    ("5", r"5 \text{ cm}^2"),
    ("5", r"5\ \mathrm{cm}"),
    ("5", "5 cm²"),
    ("5", "5 apples"),
    ("18", r"\$18"),
    ("18", "$18$"),
    ("18", "18 dollars"),
    (r"\$18.50", "18.5"),
    # percent and degrees
    ("50", r"50\%"),
    (r"50\%", "50"),
    (r"50\%", "0.5"),
    (r"\frac{1}{2}", "50%"),
    ("90", r"90^\circ"),
    (r"90^\circ", "90 degrees"),
    ("90", "90°"),
    # fractions and mixed numbers
    (r"\frac{1}{2}", r"\frac12"),
    (r"\frac{1}{2}", r"\dfrac{2}{4}"),
    (r"\frac{1}{2}", "1/2"),
    (r"\frac{1}{2}", ".5"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{1}{2}", "½"),
    (r"\frac{3}{2}", r"1\frac{1}{2}"),
    (r"\frac{3}{2}", "1 1/2"),
    (r"\frac{3}{2}", "1½"),
    (r"-\frac{3}{2}", "-1 1/2"),
    # sets, lists, tuples, intervals
    (r"\{1,2,3\}", r"\{3,2,1\}"),
    ("1,2,3", "3, 2, 1"),
    ("1,2", r"1 \text{ and } 2"),
    ("1,-1", r"\pm 1"),
    ("1,2", "x=1,2"),
    ("(1,2)", r"\left(1, 2.0\right)"),
    ("[1,2)", r"\left[1,2\right)"),
    (r"(1,2)\cup(3,4)", r"(3,4)\cup(1,2)"),
    (r"(-\infty,5)", "x<5"),
    (r"x \ge 5", r"[5,\infty)"),
    (r"\emptyset", r"\varnothing"),
    # roots, symbols, expressions, matrices
    (r"2\sqrt{2}", r"\sqrt{8}"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    ("x^2+2x+1", "(x+1)^2"),
    ("x²", "x^2"),
    ("5", "x = 5"),
    ("y=2x+1", "2x+1"),
    (r"4\pi", r"4 \pi \text{ cm}"),
    ("3+4i", "4i + 3"),
    ("1024", "2^{10}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
    ("12.5", r"12.5\%"),
    ("0.5\\%", "0.5"),
    # how numbers are written
    ("11111111100", r"11,\! 111,\! 111,\! 100"),
    ("1000", "1,000"),
    ("1000", "1{,}000"),
    ("1000000", r"1\,000\,000"),
    ("1000000", "1 000 000"),
    ("5400", r"5,\!400"),
    ("1200", "1.2e3"),
    ("1200", r"1.2\times 10^3"),
    ("-3", "−3"),
    ("42", "４２"),
    ("70", "070"),
    ("10", "10."),
    ("7", r"\textbf{7}"),
    ("7", r"\approx 7"),
    ("101_2", "101_{2}"),
    ("101_2", "101"),  # the question has named the base
    # texts
    ("Evelyn", r"\text{Evelyn}"),
    ("C", r"\text{(C)}"),
    (r"\text{even}", "Even"),
    ("6:15 p.m.", r"6:15\text{ p.m.}"),
    (r"\text{no solution}", "No solution"),
]
WRONG = [
    ("5", "6"),
    ("5", "-5"),
    ("5", "5,6"),
    ("5", "5 or 6"),
    ("5", "5 million"),
    ("5", "5 dozen"),
    ("50", r"49\%"),
    (r"\frac{1}{2}", "2"),
    (r"\frac{3}{2}", r"\frac{1}{2}"),
    (r"\frac{3}{2}", "11/2"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", r"\{1,2\}"),
    (r"\{1,2\}", "(1,2)"),
    ("[1,2)", "(1,2)"),
    ("[1,2)", "[1,2]"),
    (r"\{1,2,3\}", r"\{1,2\}"),
    ("1,2,3", "1,2"),
    (r"\pm 1", "1"),
    ("12", "1,2"),
    ("12", "21"),
    ("1000", "1.000"),
    ("x<5", "x>5"),
    ("x<5", r"x \le 5"),
    ("2", "2x"),
    ("x", "y"),
    ("x^2+1", "x^2-1"),
    ("90", r"90\pi"),
    (r"\pi", "3.14"),
    ("3.14", r"\pi"),
    (r"\infty", r"-\infty"),
    ("0", "nan"),
    ("101_2", "101_3"),
    ("Evelyn", "Carla"),
    ("C", "(D)"),
    ("1", "True"),
    ("5", ""),
    ("5", "none"),
    ("5", "[]"),
    ("5 xy", "5 ab"),
]
N = 100_000
HOSTILE = {
    "an import": "__import__('os').system('touch /tmp/firstfault-was-here')",
    "an exit": "exit()",
    "quotes": "'''\"\"\"; print(true)",
    "an answer of its own": '")\nprint("true',
    "a tower of powers": "9**9**9**9",
    "a tower of powers in LaTeX": "10^{10^{10^{10}}}",
    "a huge exponent": "1e999999999999",
    "a huge factorial": "99999999!",
    "nested braces": "{" * N + "5" + "}" * N,
    "some nested braces": "{" * 400 + "5" + "}" * 400,
    "nested fractions": r"\frac{1}{" * 90 + "2" + "}" * 90,
    "nested brackets": "(" * 450 + "5" + ")" * 450,
    "unfinished": r"\frac{5",
    "no character": "\x00",
    "half a surrogate pair": "\ud800",
    "combining": "5" + "\u0338" * 900,
    "unicode": "５五٥",
    "a long sum": "+".join(["1"] * 450),
    "much white space": " " * N,
    "too long": "5" + " " * LONGEST + "0",
}


@pytest.fixture(scope="module")
def judge():
    """`judge([(right, given)])`: the verdicts, in one process."""

    def verdicts(pairs: list[tuple[str, str]]) -> list[bool]:
        async def run() -> list[bool]:
            judge = MathJudge()
            try:
                return await asyncio.gather(*(judge.same(given, right) for right, given in pairs))
            finally:
                await judge.close()

        return asyncio.run(run())

    return verdicts


def test_the_right_answer_in_other_spellings(judge):
    pairs = RIGHT + [(right, right) for right, _ in RIGHT]
    assert [pair for pair, verdict in zip(pairs, judge(pairs), strict=True) if not verdict] == []


def test_wrong_answers(judge):
    assert [pair for pair, verdict in zip(WRONG, judge(WRONG), strict=True) if verdict] == []


def test_hostile_answers_are_wrong_and_break_nothing(judge):
    pairs = [("5", text) for text in HOSTILE.values()]
    assert dict(zip(HOSTILE, judge([*pairs, ("5", r"\frac{10}{2}")]), strict=False)) == dict.fromkeys(HOSTILE, False)
    assert judge([("5", r"\frac{10}{2}")]) == [True]


KNOWN_LIMITS = [
    (True, "100 cm", "1 m"),  # a unit is never converted
    (False, "5 cm", "5 m"),  # nor compared
    (False, "6:15", "2:5"),  # a time of day is read as a ratio
    (False, "10", "1 0"),  # white space is nothing in LaTeX
]


@pytest.mark.parametrize(("verdict", "right", "given"), KNOWN_LIMITS)
@pytest.mark.xfail(strict=True, reason="known limits, see the docstring of judges/math.py")
def test_what_a_person_would_judge_otherwise(judge, verdict, right, given):
    assert judge([(right, given)]) == [verdict]

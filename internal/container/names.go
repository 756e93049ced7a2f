package container

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// The words names are made of. They are strings, not slices, so that they cost
// nothing until the first name is made.
const (
	adjectives = "able agile amber ardent astute avid balanced bold brave breezy bright brisk calm candid " +
		"careful cheerful civil clear clever cool cosmic crisp curious dapper daring deft diligent eager earnest " +
		"easy elated elegant epic exact fair festive fierce fluent fond frank fresh friendly gallant generous " +
		"gentle gifted golden graceful grand happy hardy hearty honest hopeful humble jolly jovial keen kind lively " +
		"loyal lucid lucky mellow merry mighty modest neat nimble noble novel open patient peaceful placid playful " +
		"polite prompt proud quick quiet rapid ready relaxed rested robust rosy serene sharp shiny silent silver " +
		"sincere sleek smart smooth snug solid spry stable steady stoic sturdy subtle sunny swift tender thorough " +
		"tidy tranquil true trusty upbeat useful valiant vibrant vigilant vivid warm wise witty wonderful zealous"
	surnames = "abel adleman aho alhazen allen anning antonelli archimedes aryabhata babbage backus banach banneker " +
		"bardeen bartik bassi bell bernoulli bhabha blackwell bohr boole borg bose brahmagupta burnell cannon " +
		"cantor carson carver cerf chandrasekhar chebyshev church clarke codd cray curie darwin diffie dijkstra dirac " +
		"easley einstein elion engelbart erdos euclid euler fermat fermi feynman franklin galileo galois gauss " +
		"germain godel goldberg goodall gosling haibt hamilton hamming hawking heisenberg hellman hermann hertz " +
		"hinton hoare hodgkin hopper huygens hypatia iverson jackson jemison johnson kahn kare keldysh keller kepler " +
		"khayyam kilby knuth kovalevskaya lamarr lamport laplace leavitt lederberg leibniz lichterman liskov lovelace " +
		"mahavira margulis matsumoto maxwell mayer mccarthy mcclintock meitner mendel mendeleev merkle milner minsky " +
		"mirzakhani moore morse naur neumann newton nightingale nobel noether noyce panini pascal pasteur payne " +
		"perlman pike poincare ptolemy raman ramanujan rhodes ride ritchie rivest roentgen rosalind rubin sammet " +
		"satoshi shamir shannon shaw shockley spence stallman stonebraker sutherland swirles taussig tesla tharp " +
		"thompson torvalds tu turing varahamihira villani volhard wescoff wilbur wiles wilkes williams wing wirth wozniak wright wu yalow yonath zhukovsky"
)

// generateName makes an adjective_surname name; from the second attempt on it
// ends in a digit, as the plain ones seem to be taken.
func generateName(attempt int) string {
	name := pick(firstWords()) + "_" + pick(lastWords())
	if attempt > 1 {
		name += strconv.Itoa(rand.IntN(10))
	}
	return name
}

var (
	firstWords = sync.OnceValue(func() []string { return strings.Fields(adjectives) })
	lastWords  = sync.OnceValue(func() []string { return strings.Fields(surnames) })
)

func pick(words []string) string { return words[rand.IntN(len(words))] }

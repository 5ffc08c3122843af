// Package user is the domain of the service: what a user is, what may be done to
// one, what the log says about it, and what a store must promise.
//
// The package decides; it does not store, serve or wake anybody. An [Op] looks at
// the present user and says what the user becomes and which rows the log gets;
// it is a pure function of its arguments, so every store, and the reference model
// that the stores are tested against, shares one set of rules. A [Store] carries
// decisions out, in one transaction with the rows that tell of them.
//
// The package imports the standard library, golang.org/x/text and
// golang.org/x/net/idna only: no transport and no database shows through it.
package user

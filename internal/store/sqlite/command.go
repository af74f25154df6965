package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
)

// commands are the writer's statements that return no rows, prepared once each
// with the driver itself: database/sql takes locks and converts arguments, which
// the one goroutine that owns the connection needs none of.
type commands struct {
	stmts map[string]driver.StmtExecContext
	args  []driver.NamedValue // of the statement that runs
}

// run runs a statement that returns no rows. The arguments are of the types
// that the driver takes, or int.
func (w *writer) run(query string, args []any) (driver.Result, error) {
	s, err := w.command(query)
	if err != nil {
		return nil, err
	}
	c := &w.commands
	c.args = c.args[:0]
	for i, v := range args {
		if n, ok := v.(int); ok {
			v = int64(n)
		}
		if !driver.IsValue(v) {
			return nil, fmt.Errorf("sqlite: a statement's argument %d is a %T", i+1, v)
		}
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return s.ExecContext(context.Background(), c.args)
}

func (w *writer) command(query string) (driver.StmtExecContext, error) {
	if s, ok := w.commands.stmts[query]; ok {
		return s, nil
	}
	var s driver.StmtExecContext
	err := w.conn.Raw(func(conn any) error {
		p, err := conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), query)
		if err == nil {
			s = p.(driver.StmtExecContext)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if w.commands.stmts == nil {
		w.commands.stmts = make(map[string]driver.StmtExecContext)
	}
	w.commands.stmts[query] = s
	return s, nil
}

func (c *commands) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.(driver.Stmt).Close())
	}
	return errors.Join(errs...)
}

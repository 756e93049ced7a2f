#include "textflag.h"

// func clone3(args *cloneArgs, size, entry, work uintptr) (pid uintptr, errno syscall.Errno)
//
// The kernel keeps every register but RAX, RCX and R11 for the child too, so
// that it finds there what it needs on a stack that is still empty. Entry takes
// its argument as Go functions do: in AX, with X15 zero.
TEXT ·clone3(SB), NOSPLIT, $0-48
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ entry+16(FP), R12
	MOVQ work+24(FP), R13
	MOVL $435, AX // clone3
	SYSCALL
	CMPQ AX, $0xfffffffffffff001
	JCC  failed
	TESTQ AX, AX
	JEQ  child
	MOVQ AX, pid+32(FP)
	MOVQ $0, errno+40(FP)
	RET

failed:
	NEGQ AX
	MOVQ $0, pid+32(FP)
	MOVQ AX, errno+40(FP)
	RET

child:
	XORL BP, BP
	XORPS X15, X15
	MOVQ R13, AX
	CALL R12
	INT  $3 // entry does not return
